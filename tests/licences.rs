//! Every dependency's licence, source and name against `.cargo/deny.toml`: the part of cargo-deny that matters, offline.
//!
//! cargo-deny reads the same file where it is installed; this test needs nothing but cargo itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

#[test]
fn every_dependency_has_an_allowed_licence_from_a_known_source() {
    let deny = std::fs::read_to_string(root().join(".cargo/deny.toml"))
        .expect(".cargo/deny.toml can be read");
    let allowed = quoted(section(&deny, "allow = ["));
    assert!(
        allowed.contains("Apache-2.0"),
        "the allow list was not found: {allowed:?}"
    );
    let banned = banned(&deny);
    assert!(
        banned.contains("openssl"),
        "the ban list was not found: {banned:?}"
    );

    let mut wrong = Vec::new();
    let packages = packages();
    for package in &packages {
        let name = text(package, "name");
        let licence = text(package, "license");
        if !satisfied(licence, &allowed) {
            wrong.push(format!(
                "{name}: licence `{licence}` is not in the allow list"
            ));
        }
        if banned.contains(name) {
            wrong.push(format!("{name}: banned"));
        }
        // The crate itself has no source.
        let source = package["source"].as_str().unwrap_or("registry+");
        if !source.starts_with("registry+") && !source.starts_with("sparse+") {
            wrong.push(format!("{name}: comes from {source}"));
        }
    }
    assert!(
        packages.len() > 100,
        "cargo metadata named only {} packages",
        packages.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Zlib".to_owned()]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR Zlib) AND MIT", true),
        ("GPL-3.0 OR Zlib AND MPL-2.0", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of this host's dependency tree, as cargo sees it.
fn packages() -> Vec<serde_json::Value> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            &host(cargo),
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"]
        .as_array()
        .expect("metadata has packages")
        .clone()
}

fn host(cargo: &str) -> String {
    let output = Command::new(cargo).arg("-vV").output().expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo -vV names the host").to_owned()
}

fn text<'a>(package: &'a serde_json::Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or("")
}

fn section<'a>(deny: &'a str, start: &str) -> &'a str {
    let inside = deny.split_once(start).map_or("", |(_, rest)| rest);
    inside
        .split_once("\n]")
        .map_or(inside, |(inside, _)| inside)
}

fn quoted(text: &str) -> BTreeSet<String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn banned(deny: &str) -> BTreeSet<String> {
    let names = section(deny, "deny = [")
        .lines()
        .filter_map(|line| line.split_once("crate = \"")?.1.split('"').next());
    names.map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with `allowed` licences. AND binds tighter than OR; `/` is an old OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed)
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words.get(*at).copied();
    *at += 1;
    match word {
        Some("(") => {
            let met = any_of(words, at, allowed);
            *at += 1;
            met
        }
        // `Apache-2.0 WITH LLVM-exception` grants more than Apache-2.0 alone.
        Some(name) => {
            if words.get(*at) == Some(&"WITH") {
                *at += 2;
            }
            allowed.contains(name)
        }
        None => false,
    }
}
