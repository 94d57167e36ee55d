//! Holds the workspace against its design: which crate may know which, and how long a file may be.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The folder of the workspace.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const LONGEST_FILE: usize = 800;

/// Who may know whom. Dependencies run one way; everything meets in the command line and in the tests.
const EDGES: &[(&str, &[&str])] = &[
    ("tidemill-core", &[]),
    ("tidemill-engine", &["tidemill-core"]),
    ("tidemill-sql", &["tidemill-core", "tidemill-engine"]),
    ("tidemill-connectors", &["tidemill-core", "tidemill-engine"]),
    ("tidemill-executor", &["tidemill-core", "tidemill-engine"]),
    ("tidemill-scheduler", &["tidemill-core", "tidemill-engine", "tidemill-sql"]),
    // What others build into their programs: it knows the wire, and nobody of us.
    ("tidemill-client", &[]),
    ("tidemill", EVERYTHING),
    ("tidemill-tests", EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "tidemill",
    "tidemill-core",
    "tidemill-engine",
    "tidemill-sql",
    "tidemill-connectors",
    "tidemill-executor",
    "tidemill-scheduler",
];

/// Edges that only tests may have: the gateway is tried with our own client.
const FOR_TESTS: &[(&str, &str)] = &[("tidemill-scheduler", "tidemill-client")];

/// What a crate must never know, by the beginning of the name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("tidemill-core", &["datafusion", "ballista", "rdkafka", "deltalake"]),
    ("tidemill-engine", &["ballista", "rdkafka", "clickhouse"]),
    ("tidemill-sql", &["ballista", "rdkafka", "tonic", "reqwest"]),
    ("tidemill-client", &["ballista", "rdkafka", "deltalake"]),
    ("tidemill-connectors", &["ballista"]),
];

/// Direct dependencies of every package of the workspace, of all kinds, dev-dependencies included but for those
/// of [`FOR_TESTS`].
type Dependencies = BTreeMap<String, BTreeSet<String>>;

fn dependencies() -> Dependencies {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let for_tests = |package: &str, dependency: &Value| {
        dependency["kind"] == "dev" && FOR_TESTS.contains(&(package, name(dependency).as_str()))
    };
    let known = |package: &Value| {
        let owner = name(package);
        let dependencies = list(&package["dependencies"]);
        let counted = dependencies.iter().filter(|dependency| !for_tests(&owner, dependency));
        (owner.clone(), counted.map(name).collect())
    };
    list(&metadata["packages"]).iter().map(known).collect()
}

/// Every edge that the design does not have.
fn faults(dependencies: &Dependencies) -> Vec<String> {
    let mut faults = Vec::new();
    for (package, known) in dependencies {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| name == package) else {
            faults.push(format!("{package} is not in the design"));
            continue;
        };
        let ours = known.iter().filter(|name| dependencies.contains_key(*name));
        let strange = ours.filter(|name| !allowed.contains(&name.as_str()));
        faults.extend(strange.map(|name| format!("{package} must not depend on {name}")));
        let forbidden =
            FORBIDDEN.iter().find(|(name, _)| name == package).map_or(&[][..], |(_, names)| names);
        let meets = |name: &&String| forbidden.iter().any(|prefix| name.starts_with(prefix));
        faults.extend(known.iter().filter(meets).map(|name| format!("{package} must not know {name}")));
    }
    faults
}

#[test]
fn crates_know_only_whom_they_may() {
    let dependencies = dependencies();
    for (package, _) in EDGES {
        assert!(dependencies.contains_key(*package), "the design has {package}, the workspace does not");
    }
    assert_eq!(faults(&dependencies), Vec::<String>::new());
}

#[test]
fn an_edge_against_the_design_is_found() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let wrong = Dependencies::from([
        ("tidemill-core".to_owned(), names(&["serde", "datafusion-common"])),
        ("tidemill-connectors".to_owned(), names(&["tidemill-core", "tidemill-sql"])),
        ("tidemill-sql".to_owned(), names(&["tidemill-core"])),
        ("tidemill-extra".to_owned(), names(&[])),
    ]);
    assert_eq!(
        faults(&wrong),
        [
            "tidemill-connectors must not depend on tidemill-sql",
            "tidemill-core must not know datafusion-common",
            "tidemill-extra is not in the design",
        ]
    );
}

#[test]
fn no_file_is_too_long() {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"])
        .current_dir(ROOT)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).expect("UTF-8");
    let mut files = 0;
    let mut too_long = Vec::new();
    for path in listed.lines() {
        // A file that was deleted and not yet committed is still listed.
        let Ok(text) = std::fs::read_to_string(format!("{ROOT}/{path}")) else { continue };
        files += 1;
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            too_long.push(format!("{path} has {lines} lines"));
        }
    }
    assert!(files > 10, "only {files} source files found");
    assert_eq!(too_long, Vec::<String>::new(), "split them: at most {LONGEST_FILE} lines");
}
