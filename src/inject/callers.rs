//! Who in a pod calls a number that the sidecar takes: they get the sidecar from then on.
//!
//! The server's own probes are led on to it (`probes`). What else knows the number knows it in words, which are only named:
//! nobody but the person who wrote them can say whether the server itself is meant.

use serde_json::Value;

use super::ports::Route;
use super::probes::{CALLERS, CALLS};
use super::task::{Task, containers};

/// How a pod calls itself.
const ITSELF: [&str; 4] = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"];

/// Says who calls the numbers that have moved.
pub(super) fn name(task: &mut Task, routes: &[Route]) {
    for route in routes.iter().filter(|route| route.upstream != route.was) {
        let places = places(task, route.was);
        if !places.is_empty() {
            let places = places.join(", ");
            task.note(format!(
                "{places}: what is called there at {} is the sidecar now; let it call {} where the server itself is meant",
                route.was, route.upstream
            ));
        }
    }
}

fn places(task: &Task, number: u16) -> Vec<String> {
    let pod = task.in_pod("");
    let mut places = Vec::new();
    for container in containers(pod) {
        let is_server = container.name == task.server;
        let list = if pod["initContainers"]
            .as_array()
            .is_some_and(|first| first.contains(container.value))
        {
            "initContainers"
        } else {
            "containers"
        };
        let mut say = |at: &str| places.push(format!("{list}[{}]{at}", container.name));
        for caller in CALLERS {
            let probe = container.value.pointer(caller).unwrap_or(&Value::Null);
            let at = caller.replace('/', ".");
            let asks = CALLS.iter().any(|call| probe[*call]["port"] == number);
            if asks && !is_server {
                say(&at);
            }
            if texts(&probe["exec"]["command"]).any(|word| calls(word, number, true)) {
                say(&format!("{at}.exec"));
            }
        }
        for variable in container.value["env"].as_array().into_iter().flatten() {
            let value = variable["value"].as_str().unwrap_or_default();
            let name = variable["name"].as_str().unwrap_or_default();
            let says_it = !is_server && is_port(name, value, number);
            if says_it || calls(value, number, false) {
                say(&format!(
                    ".env[{}]",
                    variable["name"].as_str().unwrap_or("?")
                ));
            }
        }
        for key in ["command", "args"] {
            let words: Vec<&str> = texts(&container.value[key]).collect();
            let says_it = !is_server && is_told(&words, number);
            if says_it || words.iter().any(|word| calls(word, number, false)) {
                say(&format!(".{key}"));
            }
        }
    }
    places
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// Whether the words of another container tell it this number, as where the server is.
fn is_told(words: &[&str], number: u16) -> bool {
    words.iter().enumerate().any(|(at, word)| {
        let Some(flag) = word.strip_prefix('-') else {
            return false;
        };
        let next = words.get(at + 1).copied().unwrap_or_default();
        let (flag, value) = flag.split_once('=').unwrap_or((flag, next));
        is_port(flag, value, number)
    })
}

fn is_port(name: &str, value: &str, number: u16) -> bool {
    name.to_lowercase().ends_with("port") && value.parse() == Ok(number)
}

/// Whether a text has an address of the pod itself with this number, or, in what is run to ask the pod, the number alone.
fn calls(text: &str, number: u16, alone: bool) -> bool {
    let number = number.to_string();
    text.match_indices(&number).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + number.len()..]);
        let ends = |sign: char| !sign.is_ascii_alphanumeric() && sign != '.';
        if !after.is_empty() && !after.starts_with(ends) {
            return false;
        }
        match before.strip_suffix(':') {
            // Where somebody listens (`--host 0.0.0.0:8000`) the number has moved already.
            Some(host) => {
                ITSELF.iter().any(|itself| host.ends_with(itself)) || alone && is_own_address(host)
            }
            None => {
                alone && (before.is_empty() || before.ends_with([' ', '\t', '=', '/', '"', '\'']))
            }
        }
    })
}

/// Whether a text ends in what stands for the pod's address: nothing, a variable, or what a command says.
fn is_own_address(text: &str) -> bool {
    let last = text
        .split([' ', '\t', '=', '/', '"', '\'', '@'])
        .next_back();
    let last = last.unwrap_or_default();
    last.is_empty() || last.starts_with('$') || last.ends_with([')', '}', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_container_is_told_the_number_as_a_port() {
        let rows: [(&[&str], bool); 6] = [
            (&["--vllm-port=8000"], true),
            (&["--host=localhost", "--port", "8000"], true),
            (&["-port=8000"], true),
            (&["--port=80001"], false),
            (&["--max-tokens", "8000"], false),
            (&["port", "8000"], false),
        ];
        for (words, expected) in rows {
            assert_eq!(is_told(words, 8000), expected, "{words:?}");
        }
    }

    #[test]
    fn a_number_is_called_where_the_pod_itself_is_and_nowhere_else() {
        let rows = [
            ("http://localhost:8000", false, true),
            ("http://127.0.0.1:8000/v1", false, true),
            (
                "curl -f http://localhost:8000/health || exit 1",
                false,
                true,
            ),
            ("http://localhost:80001", false, false),
            ("http://localhost:18000", false, false),
            ("http://other:8000", false, false),
            ("8000", false, false),
            ("8000", true, true),
            ("nc -z localhost 8000", true, true),
            ("</dev/tcp/127.0.0.1/8000", true, true),
            ("sleep 80000", true, false),
            ("--max-tokens=8000.5", true, false),
            ("-addr=:8000", true, true),
            ("curl http://$(hostname -i):8000/health", true, true),
            ("curl http://${POD_IP}:8000/health", true, true),
            ("curl http://$POD_IP:8000/health", true, true),
            ("http://${BACKEND}:8000", false, false),
            ("curl http://other:8000/health", true, false),
        ];
        for (text, alone, expected) in rows {
            assert_eq!(calls(text, 8000, alone), expected, "{text}");
        }
    }
}
