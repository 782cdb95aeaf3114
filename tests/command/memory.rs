//! What a small container lets through: clients that make it hold much are cut off, and nobody else pays for them.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Nothing here takes as long on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A head may have so much, and is not whole then.
const HEAD: usize = 60 * 1_024;

/// `sidescale run` before a server that answers `ok`.
struct Running {
    child: Child,
    address: SocketAddr,
    said: BufReader<std::process::ChildStderr>,
}

// === impl Running ===

impl Running {
    fn with_limit(limit: &str) -> Self {
        let server = serve();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidescale"))
            .args(["run", "--no-cluster", "--memory-limit", limit])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--member", "127.0.0.1:0", "--upstream", &server.to_string()])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut running = Self {
            child,
            address,
            said,
        };
        let line = running.says("running listen=");
        let address = line
            .split_once("listen=[")
            .and_then(|(_, rest)| rest.split_once(']'));
        let (address, _) = address.expect("it says where it listens");
        running.address = address.parse().expect("one address");
        // Not before its server is known to answer is a request let through.
        while !running.answers().starts_with("HTTP/1.1 200") {}
        running
    }

    /// The first line with `words`.
    fn says(&mut self, words: &str) -> String {
        let lines = self.said.by_ref().lines();
        let mut lines = lines.map(|line| line.expect("text"));
        lines
            .find(|line| line.contains(words))
            .unwrap_or_else(|| panic!("it ends and never says `{words}`"))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    }

    fn answers(&self) -> String {
        let mut stream = self.connect();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server of HTTP/1.1 on a thread for each connection.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        stream.get_mut().write_all(answer.as_bytes()).ok();
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[test]
fn near_its_limit_heads_without_an_end_are_cut_off_and_others_are_served() {
    let mut running = Running::with_limit("24Mi");
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    head.resize(HEAD, b'x');
    let mut attackers: Vec<TcpStream> = (0..600)
        .map(|_attacker| {
            let mut stream = running.connect();
            // Cut off while it writes is cut off.
            stream.write_all(&head).ok();
            stream
        })
        .collect();
    running.says("memory is short: clients that make sidescale hold much");
    assert!(running.answers().ends_with("\r\n\r\nok"));
    // At once: a head that does not come is given up after half a minute, whatever it holds.
    let is_ended = |attacker: &mut TcpStream| {
        attacker.set_nonblocking(true).expect("a socket");
        match attacker.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    };
    let ended = attackers
        .iter_mut()
        .filter_map(|attacker| is_ended(attacker).then_some(()));
    assert!(ended.count() > 0);
}

#[test]
fn what_it_holds_itself_is_no_reason_to_turn_clients_away() {
    let mut running = Running::with_limit("64Ki");
    running.says("memory is short of what sidescale holds itself");
    let kept: Vec<TcpStream> = (0..4).map(|_client| running.connect()).collect();
    for _request in 0..20 {
        assert!(running.answers().ends_with("\r\n\r\nok"));
    }
    drop(kept);
}
