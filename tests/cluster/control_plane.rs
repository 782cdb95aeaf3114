//! One real control plane per test run: etcd, kube-apiserver and kube-controller-manager as processes.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sidescale::clock::Clock;

use crate::api_server::{ApiServer, sidecar_user};
use crate::assets::Assets;
use crate::credentials::{SigningKey, kubeconfig};
use crate::processes::{Process, run_folder};

/// A port that was free when it was asked for may be taken before the component binds it: then all is tried again.
const ATTEMPTS: usize = 3;

/// Ready takes 3 s on two idle cores; a machine that also compiles needs many times that.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The running components and how to reach them.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    api_server: ApiServer,
    /// In the order they were started. They end with the run: a static is never dropped.
    _processes: Vec<Process>,
}

/// The files and ports of one attempt.
struct Layout {
    folder: PathBuf,
    etcd: String,
    etcd_peer: String,
    port: u16,
    api_server: ApiServer,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The one control plane of this run; the first who asks starts it.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        // Starting it blocks for seconds, and building it for minutes: not on a thread that runs tasks.
        let shared = tokio::task::spawn_blocking(|| {
            SHARED.get_or_init(|| {
                start().map_err(|error| {
                    // The whole chain: the cause is what a person needs.
                    format!("{error:#}")
                })
            })
        })
        .await
        .expect("starting the control plane does not panic");
        match shared {
            Ok(control_plane) => control_plane,
            Err(error) => panic!("the real control plane does not start: {error}"),
        }
    }

    /// Its API server.
    pub(crate) fn api_server(&self) -> &ApiServer {
        &self.api_server
    }
}

fn start() -> anyhow::Result<ControlPlane> {
    let assets = Assets::find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let layout = Layout::new(run_folder().join(format!("attempt-{attempt}")))?;
        match runtime.block_on(layout.start(&assets)) {
            Ok(processes) => {
                return Ok(ControlPlane {
                    api_server: layout.api_server,
                    _processes: processes,
                });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
}

// === impl Layout ===

impl Layout {
    fn new(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let [etcd, etcd_peer, port] = free_ports()?;
        let layout = Self {
            etcd: format!("http://127.0.0.1:{etcd}"),
            etcd_peer: format!("http://127.0.0.1:{etcd_peer}"),
            port,
            // kube-apiserver signs a certificate for itself when it finds none in `--cert-dir`.
            api_server: ApiServer::at(
                format!("https://127.0.0.1:{port}"),
                Some(folder.join("certificates/apiserver.crt")),
            ),
            folder,
        };
        let api_server = &layout.api_server;
        let mut users = format!("{},admin,admin,system:masters\n", api_server.admin);
        for (number, token) in api_server.sidecars.iter().enumerate() {
            let user = sidecar_user(number);
            users.push_str(&[token, &*user, &*user].join(","));
            users.push('\n');
        }
        fs::write(layout.path("tokens.csv"), users)?;
        SigningKey::generate().write(&layout.path("sa.key"), &layout.path("sa.pub"))?;
        fs::write(
            layout.path("controllers.kubeconfig"),
            kubeconfig(
                &api_server.url,
                api_server.authority.as_deref(),
                &api_server.admin,
                "default",
            ),
        )?;
        Ok(layout)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts all three, each when what it stands on is there.
    async fn start(&self, assets: &Assets) -> anyhow::Result<Vec<Process>> {
        let mut processes = vec![
            self.process("etcd", self.etcd(assets))?,
            self.process("kube-apiserver", self.api_server(assets))?,
        ];
        self.ready(&mut processes).await?;
        // Last: it gives up on a server that is not there within ten seconds, which a busy machine may take.
        processes.push(self.process("kube-controller-manager", self.controllers(assets))?);
        Ok(processes)
    }

    fn process(&self, name: &str, command: Command) -> std::io::Result<Process> {
        Process::start(name, command, &self.path(&format!("{name}.log")))
    }

    fn etcd(&self, assets: &Assets) -> Command {
        let mut etcd = Command::new(assets.program("etcd"));
        etcd.arg("--data-dir")
            .arg(self.path("etcd"))
            .args(["--listen-client-urls", &self.etcd])
            .args(["--advertise-client-urls", &self.etcd])
            .args(["--listen-peer-urls", &self.etcd_peer])
            .args(["--initial-advertise-peer-urls", &self.etcd_peer])
            .arg(format!("--initial-cluster=default={}", self.etcd_peer))
            .args(["--log-level", "warn"])
            // Nothing here outlives the run, and a test machine's disk makes every write wait.
            .arg("--unsafe-no-fsync");
        etcd
    }

    fn api_server(&self, assets: &Assets) -> Command {
        let mut api_server = Command::new(assets.program("kube-apiserver"));
        api_server
            .args(["--etcd-servers", &self.etcd])
            .args(["--bind-address", "127.0.0.1"])
            .args(["--advertise-address", "127.0.0.1"])
            // The endpoints of the service `kubernetes` may not be loopback addresses, and nobody uses them here.
            .args(["--endpoint-reconciler-type", "none"])
            .args(["--secure-port", &self.port.to_string()])
            .arg("--cert-dir")
            .arg(self.path("certificates"))
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .arg("--service-account-key-file")
            .arg(self.path("sa.pub"))
            .arg("--service-account-signing-key-file")
            .arg(self.path("sa.key"))
            .args(["--service-cluster-ip-range", "10.0.0.0/24"])
            .args(["--authorization-mode", "RBAC"])
            .arg("--token-auth-file")
            .arg(self.path("tokens.csv"));
        api_server
    }

    fn controllers(&self, assets: &Assets) -> Command {
        let mut controllers = Command::new(assets.program("kube-controller-manager"));
        controllers
            .arg("--kubeconfig")
            .arg(self.path("controllers.kubeconfig"))
            .arg("--leader-elect=false")
            .arg("--service-account-private-key-file")
            .arg(self.path("sa.key"))
            // It serves nothing that is read here, and would need a port.
            .args(["--secure-port", "0"])
            // The default of 20 a second is for a server with many clients: a dozen tests that start at once would
            // wait for their pods behind each other.
            .args(["--kube-api-qps", "500", "--kube-api-burst", "1000"]);
        controllers
    }

    /// Waits until the API server says that it is ready.
    async fn ready(&self, processes: &mut [Process]) -> anyhow::Result<()> {
        let clock = Clock::real();
        loop {
            for process in &mut *processes {
                if let Some(status) = process.ended() {
                    anyhow::bail!(
                        "{} ended with {status}, saying:\n{}",
                        process.name(),
                        process.last_words()
                    );
                }
            }
            if self.says_ready().await {
                return Ok(());
            }
            anyhow::ensure!(
                clock.instant().offset() < READY_WITHIN,
                "kube-apiserver is not ready after {READY_WITHIN:?}; its log is in {}",
                self.folder.display()
            );
            clock.sleep(Duration::from_millis(100)).await;
        }
    }

    async fn says_ready(&self) -> bool {
        let authority = self.api_server.authority.as_ref();
        if !authority.is_some_and(|certificate| certificate.is_file()) {
            return false;
        }
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .expect("a constant path is a request");
        let admin = self.api_server.admin("default");
        admin.request_text(request).await.is_ok()
    }
}

/// Ports that the system says are free, held all at once so that they differ.
fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
