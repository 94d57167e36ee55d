use super::Served;
use super::flight::{Client, ours, query};
use arrow_flight::sql::client::FlightSqlServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use tidemill_core::Code;
use tidemill_core::config::{Auth, Tls, User};
use tidemill_scheduler::gateway::{Credentials, FlightTls, use_aws_lc};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, in PEM.
fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let issuer: &Issuer<'_, KeyPair> = authority;
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A server with a certificate of `authority`; with `mutual` it asks for one, too.
async fn serve(authority: &Authority, mutual: bool) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(authority);
    let tls = Tls {
        certificate: write(folder.path(), "server.pem", &certificate),
        key: write(folder.path(), "server.key", &key),
        client_ca: mutual.then(|| write(folder.path(), "ca.pem", &authority.pem())),
    };
    Served::start_with(Credentials::default(), Some(FlightTls::new(&tls).unwrap())).await
}

async fn connect(
    served: &Served,
    authority: &Authority,
    shown: Option<(String, String)>,
) -> Result<Client, tonic::transport::Error> {
    use_aws_lc();
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    tls = tls.domain_name("localhost");
    if let Some((certificate, key)) = shown {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let url = served.url.replace("http://", "https://");
    let channel = Endpoint::from_shared(url)?.tls_config(tls)?.connect().await?;
    Ok(FlightSqlServiceClient::new(channel))
}

#[tokio::test]
async fn tls_keeps_sessions_and_strangers_apart() {
    let authority = authority();
    let served = serve(&authority, false).await;
    let mut client = connect(&served, &authority, None).await.unwrap();
    query(&mut client, "CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    assert_eq!(query(&mut client, "SELECT n FROM t").await.unwrap()[0].num_rows(), 1);
    assert!(connect(&served, &self::authority(), None).await.is_err(), "another authority is not trusted");
    if let Ok(channel) = Endpoint::from_shared(served.url.clone()).unwrap().connect().await {
        let mut plain = FlightSqlServiceClient::new(channel);
        assert!(query(&mut plain, "SELECT 1").await.is_err(), "without TLS nothing is answered");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told() {
    let authority = authority();
    let served = serve(&authority, true).await;
    let mut shown = connect(&served, &authority, Some(certificate(&authority))).await.unwrap();
    assert_eq!(query(&mut shown, "SELECT 1").await.unwrap()[0].num_rows(), 1);
    let mut bare = connect(&served, &authority, None).await.unwrap();
    let (_, error) = ours(query(&mut bare, "SELECT 1").await.unwrap_err());
    assert_eq!(error.code, Code::Unauthenticated);
    assert!(error.message.contains("no certificate"), "{error}");
    let foreign = certificate(&self::authority());
    let refused = match connect(&served, &authority, Some(foreign)).await {
        Ok(mut client) => query(&mut client, "SELECT 1").await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a certificate of another authority");
}

fn user(name: &str, token: &str, token_expires: Option<&str>) -> User {
    let token_expires = token_expires.map(str::to_owned);
    User { name: name.to_owned(), token: Some(token.to_owned()), token_expires, ..User::default() }
}

#[tokio::test]
async fn bearer_tokens_of_the_configuration_let_in() {
    let users =
        vec![user("ann", "token-of-ann", None), user("old", "old-token", Some("2020-01-01T00:00:00Z"))];
    let served = Served::start(Credentials::new(&Auth { users, ..Auth::default() }).unwrap()).await;
    let mut client = served.client().await;
    let refused = async |client: &mut Client| {
        let (_, error) = ours(query(client, "SELECT 1").await.unwrap_err());
        assert_eq!(error.code, Code::Unauthenticated);
        error.message
    };
    assert!(refused(&mut client).await.contains("are missing"));
    client.set_token("guessed".to_owned());
    assert!(refused(&mut client).await.contains("not known"));
    client.set_token("old-token".to_owned());
    assert!(refused(&mut client).await.contains("expired at 2020-01-01"));
    client.set_token("token-of-ann".to_owned());
    query(&mut client, "CREATE TABLE mine AS SELECT 1 AS n").await.unwrap();
    assert_eq!(query(&mut client, "SELECT n FROM mine").await.unwrap()[0].num_rows(), 1);
}
