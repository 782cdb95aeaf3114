//! What a port of the server speaks, as far as its manifest tells: HTTP, HTTP under TLS, or something else.
//!
//! The sidecar carries HTTP, gRPC's included, and no TLS. A proxy in front of a `ZeroMQ` socket would answer 400 to all of it,
//! and one in front of TLS 502, after a rollout that looked well. Nothing of it can be tried here, so words are all there is:
//! of ports, probes, Services, flags and variables.

use serde_json::Value;

use super::backends::Backend;
use super::free::words;
use super::ports::Route;
use super::probes::CALLERS;
use super::services::Service;
use super::task::Task;
use super::workload::is_one_namespace;

/// Words of a port's name under which there is HTTP, whatever else it says.
const HTTP: [&str; 10] = [
    "http", "http1", "http2", "h2c", "grpc", "rest", "api", "web", "openai", "ws",
];
/// Words under which there is TLS.
const TLS: [&str; 6] = ["https", "tls", "ssl", "wss", "grpcs", "mtls"];
/// Words of ports that engines and their pods use among themselves, and of other well-known protocols.
const OTHERS: [&str; 30] = [
    "zmq",
    "zeromq",
    "ucx",
    "nixl",
    "nccl",
    "gloo",
    "rdma",
    "roce",
    "mpi",
    "redis",
    "gcs",
    "ssh",
    "sftp",
    "ftp",
    "mysql",
    "mongo",
    "mongodb",
    "postgres",
    "postgresql",
    "amqp",
    "kafka",
    "mqtt",
    "nats",
    "etcd",
    "memcached",
    "rpyc",
    "thrift",
    "udp",
    "lmcache",
    "mooncake",
];
/// What `appProtocol` calls a protocol of which nothing but bytes is known.
const BYTES: &str = "tcp";
/// Ports that are never HTTP: SSH, and Redis, which Ray's head has, too.
const NUMBERS: [(u16, &str); 2] = [(22, "ssh"), (6379, "redis")];
/// Parts of variables ending in `PORT` and of flags ending in `port` whose number is not for requests.
const INTERNAL: [&str; 11] = [
    "nixl", "zmq", "ucx", "nccl", "lmcache", "kv", "rpc", "master", "dist", "mooncake", "gloo",
];
/// Flags that turn TLS on: with a file, or by a word of yes.
const TLS_FLAGS: [&str; 20] = [
    "ssl-keyfile",
    "ssl-key-file",
    "ssl-key",
    "ssl-certfile",
    "ssl-cert-file",
    "ssl-cert",
    "keyfile",
    "certfile",
    "tls-key-file",
    "tls-cert-file",
    "tls-private-key-file",
    "tls-key",
    "tls-cert",
    "ssl",
    "tls",
    "https",
    "enable-ssl",
    "enable-tls",
    "enable-https",
    "use-ssl",
];
/// The same of one that has gRPC on a port of its own: Triton, TF-Serving.
const GRPC_FLAGS: [&str; 3] = ["grpc-use-ssl", "grpc-use-ssl-mutual", "ssl-config-file"];
/// Ends of variables that do the same. A key is a server's own, or a client's that shows who it is.
const TLS_KEYS: [&str; 6] = [
    "SSL_KEYFILE",
    "SSL_KEY_FILE",
    "SSL_KEY_PATH",
    "TLS_KEY_FILE",
    "TLS_KEY_PATH",
    "TLS_KEYFILE",
];
/// Clients' ways to a database, a queue, a store or a collector, which may have a key of their own.
const CLIENTS: [&str; 22] = [
    "PG",
    "DB",
    "DATABASE",
    "POSTGRES",
    "POSTGRESQL",
    "MYSQL",
    "MARIADB",
    "MONGO",
    "MONGODB",
    "REDIS",
    "VALKEY",
    "KAFKA",
    "RABBITMQ",
    "AMQP",
    "NATS",
    "ETCD",
    "ELASTIC",
    "ELASTICSEARCH",
    "OPENSEARCH",
    "OTEL",
    "MINIO",
    "RAY",
];
/// Ends of variables that clients have, too: of a server where nothing, or a server's name, stands before it. `SSL_CERT_FILE` is
/// none: it names whom a client trusts.
const TLS_MODES: [&str; 3] = ["SSL_CERTFILE", "TLS_CERT_FILE", "SSL_MODE"];
const SERVERS: [&str; 16] = [
    "",
    "UVICORN",
    "HYPERCORN",
    "GUNICORN",
    "LLAMA_ARG",
    "NIM",
    "VLLM",
    "SGLANG",
    "TGI",
    "TEI",
    "OLLAMA",
    "LOCALAI",
    "INFINITY",
    "BENTOML",
    "SERVER",
    "HTTP",
];
const NO: [&str; 8] = ["", "0", "false", "no", "off", "none", "null", "disabled"];

const SPEAKS: &str = "the server speaks TLS, which the sidecar does not";
const REMEDY: &str = "let the server speak plain HTTP within the pod and end TLS before it (ingress, gateway or mesh); where another port \
                      of it is plain, name that in the annotation sidescale.dev/ports";

/// What there is to know of one port: its names, its number, the Services before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port<'a> {
    pub(super) number: u16,
    /// The server's names of ports, as they were before they moved.
    pub(super) names: &'a [(String, u16)],
    pub(super) services: &'a [&'a Service],
}

// === impl Port ===

impl<'a> Port<'a> {
    fn own_names(self) -> impl Iterator<Item = &'a str> {
        let mine = self
            .names
            .iter()
            .filter(move |(_, number)| *number == self.number);
        mine.map(|(name, _)| name.as_str())
    }

    /// Whether a probe that calls this name or number calls it.
    fn is_called(self, called: &Value) -> bool {
        let by_name = called
            .as_str()
            .is_some_and(|name| self.own_names().any(|own| own == name));
        by_name || called.as_u64() == Some(self.number.into())
    }

    /// Why it carries no HTTP; `None`: nothing says so.
    pub(super) fn is_no_http(self, server: &Value) -> Option<String> {
        if is_asked_by_http(server, self) {
            return None;
        }
        let of_services: Vec<_> = self
            .services
            .iter()
            .flat_map(|service| service.words_of(self.names, self.number))
            .collect();
        for app in of_services.iter().filter_map(|said| said.app_protocol) {
            let app = app.to_lowercase();
            if has_word(&app, &HTTP) || has_word(&app, &TLS) {
                return None;
            }
            if app == BYTES || has_word(&app, &OTHERS) {
                return Some(format!("its appProtocol is {app}"));
            }
        }
        let mut names: Vec<&str> = self.own_names().collect();
        names.extend(of_services.iter().filter_map(|said| said.name));
        if names.iter().any(|name| has_word(name, &HTTP)) {
            return None;
        }
        let named = names.iter().find(|name| has_word(name, &OTHERS));
        let named = named.map(|name| format!("it is called {name}"));
        let known = NUMBERS.iter().find(|(number, _)| *number == self.number);
        let known = known.map(|(_, what)| format!("that is the port of {what}"));
        named.or(known).or_else(|| internal(server, self.number))
    }
}

/// Whether a kubelet asks there by HTTP or gRPC.
fn is_asked_by_http(server: &Value, port: Port<'_>) -> bool {
    let mut calls = CALLERS.iter().flat_map(|caller| {
        let caller = server.pointer(caller).unwrap_or(&Value::Null);
        [&caller["httpGet"]["port"], &caller["grpc"]["port"]]
    });
    calls.any(|called| port.is_called(called))
}

/// What says that the server's container talks to its own kind at `number`.
fn internal(server: &Value, number: u16) -> Option<String> {
    let number = number.to_string();
    let variables = server["env"].as_array().into_iter().flatten();
    for variable in variables.filter(|variable| variable["value"] == number.as_str()) {
        let name = variable["name"].as_str().unwrap_or_default();
        let lower = name.to_lowercase();
        if lower.ends_with("port") && has_word(&lower, &INTERNAL) {
            return Some(format!("the variable {name} has it"));
        }
    }
    let words = words(server);
    for (index, word) in words.iter().enumerate() {
        let (flag, value) = flag_of(&words, index);
        let is_internal = flag.ends_with("port") && has_word(&flag, &INTERNAL);
        if is_internal && value == number {
            return Some(format!("the flag --{flag} has it"));
        }
        let ends = word.trim_matches(['"', '\'', ',', '}', ']']);
        let in_json = word.split([',', '{', '}']).any(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or(("", ""));
            key.trim_matches(['"', '\'']) == "kv_port" && value.trim_matches(['"', '\'']) == number
        });
        let is_socket = word.contains("tcp://") && ends.ends_with(&format!(":{number}"));
        if in_json || is_socket {
            return Some(format!("{word} has it"));
        }
    }
    None
}

/// Refuses servers that speak TLS on a port that the sidecar stands before; their probes are as they were.
pub(super) fn refuse_tls(
    task: &mut Task,
    services: &[Service],
    backends: &[Backend],
    names: &[(String, u16)],
    routes: &[Route],
) {
    let server = task.in_server("").clone();
    let services: Vec<&Service> = { services.iter() }
        .filter(|service| service.selects(&task.workload))
        .collect();
    let port_of = |route: &Route| Port {
        number: route.was,
        names,
        services: &services,
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for caller in CALLERS {
        let (caller, field) = (&server.pointer(caller), caller.replace('/', "."));
        let caller = caller.unwrap_or(&Value::Null);
        let http = &caller["httpGet"];
        let is_called = |route: &Route| port_of(route).is_called(&http["port"]);
        if http["scheme"] == "HTTPS" && routes.iter().any(is_called) {
            found.push((
                task.server_words(&format!("{field}.httpGet.scheme")),
                SPEAKS.to_owned(),
            ));
        }
        let command = caller["exec"]["command"].to_string();
        if routes.iter().any(|route| asks_by_tls(&command, route.was)) {
            found.push((
                task.server_words(&format!("{field}.exec")),
                SPEAKS.to_owned(),
            ));
        }
    }
    for route in routes {
        if let Some(why) = port_of(route).is_tls() {
            let at = task.server_words(".ports");
            found.push((at, format!("port {}: {why}: {SPEAKS}", route.was)));
        }
    }
    for service in &services {
        let is_it = |backend: &&Backend| {
            backend.name == service.name
                && is_one_namespace(
                    backend.namespace.as_deref(),
                    task.workload.namespace.as_deref(),
                )
        };
        if let Some(backend) = backends.iter().find(is_it) {
            let at = task.server_words(".ports");
            found.push((at, format!("{}: {SPEAKS}", backend.said)));
        }
    }
    let has_grpc = routes.iter().any(|route| {
        let mut own = names.iter().filter(|(_, number)| *number == route.was);
        own.any(|(name, _)| has_word(name, &["grpc"])) || matches!(route.was, 8001 | 8500)
    });
    if let Some(said) = said_by_flag(&server, has_grpc).or_else(|| said_by_variable(&server)) {
        found.push((task.server_words(""), format!("{said}: {SPEAKS}")));
    }
    for (at, reason) in found {
        task.refuse(&at, reason, REMEDY);
    }
}

impl Port<'_> {
    /// Why there is TLS; `None`: nothing says so.
    fn is_tls(self) -> Option<String> {
        if let Some(name) = self.own_names().find(|name| has_word(name, &TLS)) {
            return Some(format!("it is called {name}"));
        }
        let is_plain = self.own_names().any(|name| has_word(name, &HTTP));
        for service in self.services {
            let said: Vec<_> = service.words_of(self.names, self.number).collect();
            let is_tls = |text: &str| has_word(&text.to_lowercase(), &TLS);
            if let Some(app) = said.iter().find_map(|said| said.app_protocol) {
                if is_tls(app) {
                    return Some(format!("Service {} says appProtocol {app}", service.name));
                }
                continue;
            }
            let (secret, plain): (Vec<_>, Vec<_>) = said
                .iter()
                .filter_map(|said| said.name)
                .partition(|name| is_tls(name));
            // A load balancer ends TLS itself where both doors lead to one port, or where it has been given a certificate.
            let ends_before = is_plain || !plain.is_empty() || service.ends_tls;
            if let (Some(name), false) = (secret.first(), ends_before) {
                return Some(format!(
                    "Service {} calls it {name}, and nothing says that TLS ends before it",
                    service.name
                ));
            }
        }
        None
    }
}

/// Whether a command asks this pod for something under TLS.
fn asks_by_tls(command: &str, number: u16) -> bool {
    let hosts = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "$POD_IP"];
    hosts.iter().any(|host| {
        let address = format!("https://{host}:{number}");
        let mut found = command.match_indices(&address);
        found.any(|(at, _)| {
            let next = command[at + address.len()..].chars().next();
            !next.is_some_and(|next| next.is_ascii_digit())
        })
    })
}

fn said_by_flag(server: &Value, has_grpc: bool) -> Option<String> {
    let words = words(server);
    (0..words.len()).find_map(|index| {
        let (flag, value) = flag_of(&words, index);
        let is_it =
            TLS_FLAGS.contains(&flag.as_str()) || has_grpc && GRPC_FLAGS.contains(&flag.as_str());
        // A switch that stands alone is a yes.
        let is_bare = value.is_empty() && !words[index].contains('=');
        let is_on = is_bare || !NO.contains(&value.to_lowercase().as_str());
        (is_it && is_on).then(|| format!("it is told {}", words[index]))
    })
}

fn said_by_variable(server: &Value) -> Option<String> {
    let mut variables = server["env"].as_array().into_iter().flatten();
    let found = variables.find(|variable| {
        let name = variable["name"].as_str().unwrap_or_default();
        let value = variable["value"].as_str().unwrap_or_default();
        // What a Secret says is not known, and says something.
        let is_on =
            !variable["valueFrom"].is_null() || !NO.contains(&value.to_lowercase().as_str());
        let before = |ends: &[&str]| {
            let found = ends.iter().find_map(|end| name.strip_suffix(end));
            found.map(|start| start.trim_end_matches('_'))
        };
        let is_client = |start: &str| {
            let mut words = start.split('_');
            words.any(|word| CLIENTS.contains(&word))
        };
        let is_key = before(&TLS_KEYS).is_some_and(|start| !is_client(start));
        let is_mode = before(&TLS_MODES).is_some_and(|start| SERVERS.contains(&start));
        is_on && (is_key || is_mode)
    })?;
    Some(format!(
        "it is told {}",
        found["name"].as_str().unwrap_or_default()
    ))
}

/// The flag that begins at a word, without its dashes and in one spelling, and its value.
fn flag_of(words: &[String], index: usize) -> (String, String) {
    let word = words[index].trim_matches(['"', '\'']);
    let Some(bare) = word
        .strip_prefix("--")
        .or_else(|| word.strip_prefix('-').filter(|rest| rest.len() > 1))
    else {
        return (String::new(), String::new());
    };
    let next = words.get(index + 1).map_or("", String::as_str);
    let next = if next.starts_with('-') { "" } else { next };
    let (flag, value) = bare.split_once('=').unwrap_or((bare, next));
    let value = value.trim_matches(['"', '\'']).to_owned();
    (flag.to_lowercase().replace('_', "-"), value)
}

fn has_word(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    name.split(|sign: char| !sign.is_ascii_alphanumeric())
        .any(|word| words.contains(&word))
}
