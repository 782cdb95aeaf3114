//! Where in the pod the server listens: the sidecar asks it at 127.0.0.1.

use serde_json::Value;

use super::engines::references;
use super::task::Task;

/// Flags that say at which address a server listens.
const FLAGS: [&str; 8] = [
    "--host",
    "--bind",
    "-b",
    "--listen",
    "--address",
    "--ip",
    "-H",
    "--addr",
];
/// Variables that do.
const VARIABLES: [&str; 6] = ["HOST", "BIND", "ADDRESS", "ADDR", "LISTEN", "LISTEN_HOST"];

/// Refuses a server that listens at the pod's own address alone: the sidecar would never reach it, and the rollout would hang.
pub(super) fn refuse_pod_address(task: &mut Task) {
    let server = task.in_server("").clone();
    let env = || server["env"].as_array().into_iter().flatten();
    let addresses: Vec<&str> = env()
        .filter(|one| {
            let field = &one["valueFrom"]["fieldRef"]["fieldPath"];
            field == "status.podIP" || field == "status.podIPs"
        })
        .filter_map(|one| one["name"].as_str())
        .collect();
    let is_pods = |text: &str| is_address_of_the_pod(text, &addresses);
    let list = |key: &str| server[key].as_array().into_iter().flatten();
    let texts: Vec<&str> = { list("command").chain(list("args")) }
        .filter_map(Value::as_str)
        .collect();
    let words: Vec<&str> = { texts.iter() }
        .flat_map(|text| text.split_whitespace())
        .collect();
    let by_flag = words.iter().enumerate().find_map(|(at, word)| {
        let (flag, value) = word
            .split_once('=')
            .unwrap_or((*word, words.get(at + 1).copied().unwrap_or_default()));
        (FLAGS.contains(&flag) && is_pods(value)).then(|| format!("{flag} {value}"))
    });
    let by_variable = || {
        env().find_map(|one| {
            let (name, value) = (one["name"].as_str()?, one["value"].as_str()?);
            let says_where = VARIABLES
                .iter()
                .any(|end| name == *end || name.ends_with(&format!("_{end}")));
            (says_where && is_pods(value)).then(|| format!("{name}={value}"))
        })
    };
    if let Some(said) = by_flag.or_else(by_variable) {
        let at = task.server_words("");
        task.refuse(
            &at,
            format!(
                "it is told {said}, the pod's address alone, and the sidecar asks it at 127.0.0.1"
            ),
            "let it listen at 0.0.0.0, which has both",
        );
    }
}

/// Whether it is the pod's address, and perhaps a port, by one of these variables or by a command that tells it.
fn is_address_of_the_pod(text: &str, variables: &[&str]) -> bool {
    let text = text.trim_matches(['"', '\'']);
    let text = text.split_once("://").map_or(text, |(_, address)| address);
    let is_variable = |name: &&str| {
        let mut found = references(text, name);
        found.any(|at| matches!(&text[..at], "" | "["))
    };
    let is_command = |command: &&str| {
        let rest = text.strip_prefix(*command);
        rest.is_some_and(|rest| {
            !rest.starts_with(|sign: char| sign.is_ascii_alphanumeric() || sign == '_')
        })
    };
    variables.iter().any(is_variable) || ["$(hostname", "`hostname"].iter().any(is_command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_address_is_known_by_its_variable() {
        let rows = [
            ("$(POD_IP)", true),
            ("$(POD_IP):8000", true),
            ("http://$(POD_IP):8000", true),
            ("[$(POD_IP)]:8000", true),
            ("$POD_IP", true),
            ("\"${POD_IP}\"", true),
            ("$(hostname -i)", true),
            ("$POD_IPS", false),
            ("$(HOST_IP)", false),
            ("0.0.0.0", false),
            ("0.0.0.0:8000", false),
        ];
        for (text, expected) in rows {
            assert_eq!(is_address_of_the_pod(text, &["POD_IP"]), expected, "{text}");
        }
    }
}
