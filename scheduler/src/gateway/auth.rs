//! Who calls: basic credentials and bearer tokens, against the one user of the configuration.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tidemill_core::connector::resolve_secret;
use tidemill_core::{Code, Error, Result, config};

/// Name of callers that gave none.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Go clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a caller must know; without a password everyone is let in.
#[derive(Clone, Default)]
pub struct Credentials {
    user: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The `authorization` header, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authorization<'a> {
    Missing,
    Basic { user: String, password: String },
    Bearer(&'a str),
}

impl Credentials {
    /// Resolves the reference to the password.
    pub fn new(auth: &config::Auth) -> Result<Self> {
        let password = auth.password.as_deref().map(resolve_secret).transpose()?;
        if auth.user.is_some() && password.is_none() {
            return Err(Error::new(Code::Config, "auth.user is set, auth.password is not")
                .hint("set auth.password = 'env:NAME' or 'file:PATH'"));
        }
        Ok(Self { user: auth.user.clone(), password })
    }

    pub(super) fn required(&self) -> bool {
        self.password.is_some()
    }

    pub(super) fn check(&self, user: &str, password: &str) -> Result<()> {
        let Some(wanted) = &self.password else { return Ok(()) };
        let user_fits = self.user.as_ref().is_none_or(|wanted| same(wanted, user));
        if same(wanted, password) && user_fits {
            return Ok(());
        }
        Err(unauthenticated("wrong user or password"))
    }
}

/// Takes as long for a near miss as for a far one.
fn same(wanted: &str, given: &str) -> bool {
    let difference = wanted.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    wanted.len() == given.len() && difference == 0
}

pub(super) fn unauthenticated(message: &str) -> Error {
    Error::new(Code::Unauthenticated, message)
        .hint("give the user and the password of [auth] in the server's configuration")
}

/// Reads the header's value. Other schemes and broken values are refused.
pub(super) fn parse(header: Option<&str>) -> Result<Authorization<'_>> {
    let Some(value) = header else { return Ok(Authorization::Missing) };
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Authorization::Bearer(rest.trim()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unauthenticated("the authorization is neither `Basic` nor `Bearer`"));
    }
    let text = BASE64.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) = pair.ok_or_else(|| unauthenticated("the basic authorization does not read"))?;
    Ok(Authorization::Basic { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header() {
        assert_eq!(parse(None).unwrap(), Authorization::Missing);
        assert_eq!(parse(Some("bearer abc")).unwrap(), Authorization::Bearer("abc"));
        let wanted = Authorization::Basic { user: "ann".to_owned(), password: "pass:word".to_owned() };
        let encoded = BASE64.encode("ann:pass:word");
        assert!(encoded.ends_with('='));
        for basic in [format!("Basic {encoded}"), format!("basic {}", encoded.trim_end_matches('='))] {
            assert_eq!(parse(Some(&basic)).unwrap(), wanted);
        }
        assert_eq!(parse(Some("Basic !")).unwrap_err().code, Code::Unauthenticated);
        assert_eq!(parse(Some("Digest x")).unwrap_err().code, Code::Unauthenticated);
    }

    #[test]
    fn checks_user_and_password() {
        let auth = config::Auth { user: Some("ann".to_owned()), password: Some("secret".to_owned()) };
        let credentials = Credentials::new(&auth).unwrap();
        assert!(credentials.check("ann", "secret").is_ok());
        assert!(credentials.check("bob", "secret").is_err());
        assert!(credentials.check("ann", "secre").is_err());
        assert!(credentials.check("ann", "").is_err());
        assert!(Credentials::default().check("any", "thing").is_ok());
        let half = config::Auth { user: Some("ann".to_owned()), password: None };
        assert_eq!(Credentials::new(&half).unwrap_err().code, Code::Config);
    }
}
