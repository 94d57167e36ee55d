//! Who calls: basic credentials and bearer tokens, against the users of the configuration.

use argon2::password_hash::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tidemill_core::connector::resolve_secret;
use tidemill_core::{Code, Error, Result, config};

/// Name of callers that gave none.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Go clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What callers must know. Without users everyone is let in, under the name that they give.
#[derive(Clone, Default)]
pub struct Credentials {
    users: Arc<Vec<User>>,
    /// Whether callers without a name are let in although there are users; `None` where nothing is said.
    anonymous: Option<bool>,
    /// Passwords that were found to fit a hash: that takes long on purpose, and clients send theirs with each call.
    verified: Arc<Mutex<HashMap<String, String>>>,
}

struct User {
    /// `None`: the password alone is asked for, whatever the name.
    name: Option<String>,
    password: Option<String>,
    token: Option<String>,
    token_ends: Option<DateTime<Utc>>,
    admin: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.users.iter().filter_map(|user| user.name.as_deref()).collect();
        f.debug_struct("Credentials").field("users", &names).finish_non_exhaustive()
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
    /// Resolves the references to passwords and tokens.
    pub fn new(auth: &config::Auth) -> Result<Self> {
        let mut users = Vec::new();
        if auth.user.is_some() && auth.password.is_none() {
            return Err(Error::new(Code::Config, "auth.user is set, auth.password is not")
                .hint("set auth.password = 'env:NAME' or 'file:PATH'"));
        }
        if let Some(password) = &auth.password {
            let password = Some(checked_hash(resolve_secret(password)?, "auth.password")?);
            let name = auth.user.clone();
            users.push(User { name, password, token: None, token_ends: None, admin: false });
        }
        for user in &auth.users {
            users.push(User::new(user)?);
        }
        for (position, user) in users.iter().enumerate() {
            if users[..position].iter().any(|other| other.name == user.name) {
                let name = user.name.as_deref().unwrap_or_default();
                return Err(Error::new(Code::Config, format!("auth.users has `{name}` twice")));
            }
        }
        if users.is_empty() && auth.anonymous == Some(false) {
            return Err(Error::new(Code::Config, "auth.anonymous is false, and there is no user")
                .hint("add [[auth.users]] with a name and a password or a token"));
        }
        Ok(Self { users: Arc::new(users), anonymous: auth.anonymous, verified: Arc::default() })
    }

    /// Refuses to let everybody in from other machines, unless that is what the configuration asks for.
    pub fn demand_for(&self, key: &str, address: SocketAddr) -> Result<()> {
        if !self.users.is_empty() || self.anonymous == Some(true) || address.ip().is_loopback() {
            return Ok(());
        }
        let message = format!("{key} = \"{address}\" is open to other machines, and nobody needs a password");
        Err(Error::new(Code::Config, message).hint(
            "add [[auth.users]], listen on 127.0.0.1, or say auth.anonymous = true if everyone may do everything",
        ))
    }

    pub(super) fn required(&self) -> bool {
        !self.users.is_empty() && self.anonymous != Some(true)
    }

    /// Whose jobs `user` may end: only those of this name, or everybody's, which `None` stands for: where nobody has
    /// to prove a name, and for administrators.
    pub(super) fn owner<'a>(&self, user: &'a str) -> Option<&'a str> {
        let named = self.users.iter().any(|user| user.name.is_some());
        (named && !self.administers(user)).then_some(user)
    }

    /// Whether `user`, who has proved the name, is an administrator.
    pub(super) fn administers(&self, user: &str) -> bool {
        self.users.iter().any(|known| known.admin && known.name.as_deref() == Some(user))
    }

    pub(super) fn check(&self, name: &str, password: &str) -> Result<()> {
        if self.users.is_empty() {
            return Ok(());
        }
        // The password that everybody may use is not one for a user who has a password.
        let named = self.users.iter().find(|user| user.name.as_deref() == Some(name));
        let user = named.or_else(|| self.users.iter().find(|user| user.name.is_none()));
        let wanted = user.and_then(|user| user.password.as_deref());
        if wanted.is_some_and(|wanted| self.fits(name, wanted, password)) {
            return Ok(());
        }
        Err(unauthenticated("wrong user or password"))
    }

    fn fits(&self, name: &str, wanted: &str, given: &str) -> bool {
        if !is_hash(wanted) {
            return same(wanted, given);
        }
        if self.verified.lock().get(name).is_some_and(|known| same(known, given)) {
            return true;
        }
        let Ok(hash) = PasswordHash::new(wanted) else { return false };
        let fits = Argon2::default().verify_password(given.as_bytes(), &hash).is_ok();
        if fits {
            self.verified.lock().insert(name.to_owned(), given.to_owned());
        }
        fits
    }

    /// Whose token it is; `None` when it is nobody's of the configuration.
    pub(super) fn user_of_token(&self, token: &str) -> Result<Option<String>> {
        let owner =
            self.users.iter().find(|user| user.token.as_deref().is_some_and(|known| same(known, token)));
        let Some(owner) = owner else { return Ok(None) };
        match owner.token_ends {
            Some(end) if end <= Utc::now() => {
                Err(unauthenticated(&format!("the bearer token expired at {}", end.to_rfc3339())))
            }
            _ => Ok(owner.name.clone()),
        }
    }
}

impl User {
    fn new(user: &config::User) -> Result<Self> {
        let key = format!("auth.users, `{}`", user.name);
        if user.name.is_empty() || user.name.contains(':') {
            return Err(Error::new(Code::Config, format!("{key}: this is no name for a user")));
        }
        if user.password.is_none() && user.token.is_none() {
            return Err(Error::new(Code::Config, format!("{key} has neither a password nor a token"))
                .hint("set password or token to 'env:NAME' or 'file:PATH'"));
        }
        if user.admin && user.name == ANONYMOUS {
            let message = format!("{key}: an administrator cannot be called so");
            return Err(Error::new(Code::Config, message).hint("this is the name of callers who give none"));
        }
        let password = match &user.password {
            Some(password) => Some(checked_hash(resolve_secret(password)?, &key)?),
            None => None,
        };
        let token = user.token.as_deref().map(resolve_secret).transpose()?;
        if token.as_deref().is_some_and(|token| token.trim().is_empty()) {
            return Err(Error::new(Code::Config, format!("{key}: the token is empty")));
        }
        let token_ends = match &user.token_expires {
            Some(text) => Some(text.parse::<DateTime<Utc>>().map_err(|error| {
                Error::new(Code::Config, format!("{key}: token_expires is no time: {error}"))
                    .hint("write it like 2026-12-31T00:00:00Z")
            })?),
            None => None,
        };
        Ok(Self { name: Some(user.name.clone()), password, token, token_ends, admin: user.admin })
    }
}

fn is_hash(password: &str) -> bool {
    password.starts_with("$argon2")
}

/// A hash that does not read would lock its user out without a word.
fn checked_hash(password: String, key: &str) -> Result<String> {
    if is_hash(&password)
        && let Err(error) = PasswordHash::new(&password)
    {
        return Err(Error::new(
            Code::Config,
            format!("{key}: the hash of the password does not read: {error}"),
        ));
    }
    Ok(password)
}

/// Takes as long for a near miss as for a far one.
fn same(wanted: &str, given: &str) -> bool {
    let difference = wanted.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    wanted.len() == given.len() && difference == 0
}

pub(super) fn unauthenticated(message: &str) -> Error {
    Error::new(Code::Unauthenticated, message)
        .hint("give a user and a password, or a bearer token, of [auth] in the server's configuration")
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
    use tidemill_core::config::Auth;

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

    fn user(name: &str, password: Option<&str>, token: Option<&str>) -> config::User {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        config::User {
            name: name.to_owned(),
            password: owned(password),
            token: owned(token),
            ..config::User::default()
        }
    }

    #[test]
    fn users_end_their_own_jobs_and_administrators_everybodys() {
        let boss = config::User { admin: true, ..user("boss", Some("p"), None) };
        let auth = |users| Auth { users, ..Auth::default() };
        let credentials = Credentials::new(&auth(vec![user("ann", Some("p"), None), boss.clone()])).unwrap();
        assert_eq!(credentials.owner("ann"), Some("ann"));
        assert_eq!(credentials.owner(ANONYMOUS), Some(ANONYMOUS));
        assert_eq!(credentials.owner("boss"), None);
        assert!(credentials.administers("boss") && !credentials.administers("ann"));
        let open = Credentials::default();
        assert!(open.owner("ann").is_none() && !open.administers("ann"), "nobody proves a name");
        let nobody = config::User { name: ANONYMOUS.to_owned(), ..boss };
        assert_eq!(Credentials::new(&auth(vec![nobody])).unwrap_err().code, Code::Config);
    }

    #[test]
    fn checks_user_and_password() {
        let one = |user: Option<&str>, password: Option<&str>| Auth {
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            ..Auth::default()
        };
        let credentials = Credentials::new(&one(Some("ann"), Some("secret"))).unwrap();
        assert!(credentials.required());
        assert!(credentials.check("ann", "secret").is_ok());
        assert!(credentials.check("bob", "secret").is_err());
        assert!(credentials.check("ann", "secre").is_err());
        assert!(credentials.check("ann", "").is_err());
        assert!(Credentials::default().check("any", "thing").is_ok());
        assert_eq!(Credentials::new(&one(Some("ann"), None)).unwrap_err().code, Code::Config);
    }

    #[test]
    fn several_users_with_hashes_and_tokens() {
        // argon2id of `hashed`, with little work.
        let hash = "$argon2id$v=19$m=16,t=2,p=1$c29tZXNhbHQ$";
        assert_eq!(
            Credentials::new(&Auth { users: vec![user("ann", Some(hash), None)], ..Auth::default() })
                .unwrap_err()
                .code,
            Code::Config
        );
        let salt = argon2::password_hash::SaltString::encode_b64(b"some salt").unwrap();
        let hash = argon2::PasswordHasher::hash_password(&Argon2::default(), b"hashed", &salt).unwrap();
        let mut expired = user("old", None, Some("gone"));
        expired.token_expires = Some("2020-01-01T00:00:00Z".to_owned());
        let users = vec![
            user("ann", Some(&hash.to_string()), None),
            user("bob", Some("plain"), Some("token-of-bob")),
            expired,
        ];
        let credentials = Credentials::new(&Auth { users, ..Auth::default() }).unwrap();
        for _ in 0..2 {
            assert!(credentials.check("ann", "hashed").is_ok());
            assert!(credentials.check("ann", "plain").is_err());
        }
        assert!(credentials.check("ann", &hash.to_string()).is_err(), "a hash is no password");
        assert!(credentials.check("bob", "plain").is_ok());
        assert!(credentials.check("old", "").is_err(), "who has only a token has no password");
        assert_eq!(credentials.user_of_token("token-of-bob").unwrap().as_deref(), Some("bob"));
        assert_eq!(credentials.user_of_token("other").unwrap(), None);
        let error = credentials.user_of_token("gone").unwrap_err();
        assert!(error.message.contains("expired at 2020-01-01"), "{error}");
    }

    #[test]
    fn faults_of_the_configuration_are_named() {
        let code = |users: Vec<config::User>, anonymous| {
            Credentials::new(&Auth { users, anonymous, ..Auth::default() }).err().map(|error| error.code)
        };
        assert_eq!(code(vec![user("ann", None, None)], None), Some(Code::Config));
        assert_eq!(code(vec![user("a:b", Some("p"), None)], None), Some(Code::Config));
        assert_eq!(
            code(vec![user("a", Some("p"), None), user("a", Some("q"), None)], None),
            Some(Code::Config)
        );
        assert_eq!(code(Vec::new(), Some(false)), Some(Code::Config));
        assert_eq!(code(vec![user("ann", Some("p"), None)], Some(true)), None);
    }

    #[test]
    fn other_machines_are_let_in_only_on_purpose() {
        let open = Credentials::default();
        assert!(open.demand_for("server.flight", "127.0.0.1:1".parse().unwrap()).is_ok());
        assert!(open.demand_for("server.flight", "[::1]:1".parse().unwrap()).is_ok());
        let everywhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert_eq!(open.demand_for("server.flight", everywhere).unwrap_err().code, Code::Config);
        let asked = Auth { anonymous: Some(true), ..Auth::default() };
        assert!(Credentials::new(&asked).unwrap().demand_for("server.flight", everywhere).is_ok());
        let users = Auth { users: vec![user("ann", Some("p"), None)], ..Auth::default() };
        assert!(Credentials::new(&users).unwrap().demand_for("server.flight", everywhere).is_ok());
    }
}
