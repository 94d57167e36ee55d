use super::{Served, secret};
use tidemill_scheduler::gateway::Credentials;
use tokio::process::Command;

/// Runs `tests/clients/adbc_smoke.py` with the interpreter that `TIDEMILL_ADBC_PYTHON` names.
async fn smoke(served: &Served, more: &[&str]) {
    let Ok(python) = std::env::var("TIDEMILL_ADBC_PYTHON") else {
        println!("SKIPPED: TIDEMILL_ADBC_PYTHON names no Python with the ADBC driver");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients/adbc_smoke.py");
    let pid = std::process::id().to_string();
    let uri = served.url.replace("http://", "grpc://");
    let status =
        Command::new(python).args([script, &uri, "--server-pid", &pid]).args(more).status().await.unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_without_a_password() {
    smoke(&Served::start(Credentials::default()).await, &["--rows", "10000000"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_a_password() {
    smoke(&Served::start(secret()).await, &["--rows", "1000", "--user", "ann", "--password", "secret"]).await;
}
