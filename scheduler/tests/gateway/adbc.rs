use super::{Served, secret};
use tidemill_scheduler::gateway::Credentials;
use tokio::process::Command;

/// Runs a script of `tests/clients/` with the interpreter that `TIDEMILL_ADBC_PYTHON` names.
pub(crate) async fn smoke(script: &str, served: &Served, more: &[&str]) {
    let Ok(python) = std::env::var("TIDEMILL_ADBC_PYTHON") else {
        println!(
            "SKIPPED {script}: TIDEMILL_ADBC_PYTHON is not set (deploy/services/python installs the clients)"
        );
        return;
    };
    let script = format!("{}/../tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let pid = std::process::id().to_string();
    let uri = served.url.replace("http://", "grpc://");
    let status =
        Command::new(python).args([&script, &uri, "--server-pid", &pid]).args(more).status().await.unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_without_a_password() {
    smoke("adbc_smoke.py", &Served::start(Credentials::default()).await, &["--rows", "10000000"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_a_password() {
    smoke(
        "adbc_smoke.py",
        &Served::start(secret()).await,
        &["--rows", "1000", "--user", "ann", "--password", "secret"],
    )
    .await;
}
