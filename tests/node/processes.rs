//! The processes of the nodes' containers, as the machine under them sees them.

use std::fs;
use std::process::Command;

use crate::wait::wish;

/// The process of the sidecar in a pod of this name: the only one with the pod's name among its variables.
pub(crate) fn sidecar_of(pod: &str) -> Option<u32> {
    let mark = format!("POD_NAME={pod}\0");
    numbers().find(|number| read(*number, "environ").contains(&mark))
}

/// The process of a container's command in a pod with this uid: of those with the uid in their control group the one
/// whose command line has `word`.
pub(crate) fn process_of(pod_uid: &str, word: &str) -> Option<u32> {
    // The systemd driver of control groups writes underscores.
    let marks = [pod_uid.to_owned(), pod_uid.replace('-', "_")];
    numbers().find(|number| {
        let groups = read(*number, "cgroup");
        let line = read(*number, "cmdline");
        marks.iter().any(|mark| groups.contains(mark)) && line.split('\0').any(|part| part == word)
    })
}

/// A daemon of the cluster. Whose machine has several of them must say which one is meant, as the variable says.
pub(crate) fn daemon(name: &str, variable: &str) -> u32 {
    let wished = wish(variable, 0);
    if wished > 0 {
        return wished;
    }
    let found: Vec<u32> = numbers()
        .filter(|number| read(*number, "comm").trim_end() == name)
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{name} on this machine: {found:?}; say which in {variable}: see tests/node/main.rs"
    );
    found[0]
}

/// What a process has taken for itself and not given back, MiB: what counts where its container is killed for want of
/// memory. NaN: it has gone.
pub(crate) fn memory_of(process: u32) -> f64 {
    let status = read(process, "status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1_024.0)
}

/// A process that is stopped, until this is dropped: a test that fails must not leave a cluster behind that stands still.
#[must_use = "dropped, it goes on"]
pub(crate) struct Stopped(u32);

// === impl Stopped ===

impl Stopped {
    pub(crate) fn of(process: u32) -> Self {
        signal(process, "STOP");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A panic within a panic would say nothing of the first.
        let sent = Command::new("kill")
            .args(["-s", "CONT", &self.0.to_string()])
            .status();
        drop(sent);
    }
}

fn numbers() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
}

/// A file of a process; empty: it has gone.
fn read(process: u32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a process a signal, as `kill` names it.
pub(crate) fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "kill -s {signal} {process}: are you root on this machine?"
    );
}
