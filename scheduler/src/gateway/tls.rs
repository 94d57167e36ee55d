//! TLS of Flight SQL, and who must show a certificate.

use std::path::Path;
use std::sync::Once;
use tidemill_core::{Code, Error, Result, config};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// Certificates as the configuration names them.
#[derive(Clone, Debug)]
pub struct FlightTls {
    pub(super) config: ServerTlsConfig,
    /// Whether a client without a certificate is refused.
    pub(super) mutual: bool,
}

impl FlightTls {
    /// Reads the files.
    pub fn new(tls: &config::Tls) -> Result<Self> {
        use_aws_lc();
        let identity = Identity::from_pem(
            read("server.tls.certificate", &tls.certificate)?,
            read("server.tls.key", &tls.key)?,
        );
        let mut config = ServerTlsConfig::new().identity(identity);
        if let Some(path) = &tls.client_ca {
            let authority = Certificate::from_pem(read("server.tls.client_ca", path)?);
            // TLS itself would only end the connection; we can say what is missing.
            config = config.client_ca_root(authority).client_auth_optional(true);
        }
        Ok(Self { config, mutual: tls.client_ca.is_some() })
    }
}

/// Two of rustls' providers are linked, so that one has to be chosen, once for the process.
pub fn use_aws_lc() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // An error says that somebody has chosen already, and that is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::new(Code::Config, format!("{key}: {} cannot be read: {error}", path.display()))
            .hint("it is the path of a file in PEM format")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_is_named() {
        let tls =
            config::Tls { certificate: "/no/such.pem".into(), key: "/no/key.pem".into(), client_ca: None };
        let error = FlightTls::new(&tls).unwrap_err();
        assert_eq!(error.code, Code::Config);
        assert!(error.message.starts_with("server.tls.certificate: /no/such.pem"), "{error}");
    }
}
