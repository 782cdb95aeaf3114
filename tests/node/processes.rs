//! The processes of the nodes' containers, as the machine under them sees them.

use std::fs;
use std::process::Command;

/// The process of the sidecar in a pod of this name: the only one with the pod's name among its variables.
pub(crate) fn sidecar_of(pod: &str) -> Option<u32> {
    let mark = format!("POD_NAME={pod}\0");
    let processes = fs::read_dir("/proc").ok()?;
    let numbers =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|number| {
        let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        environment
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
    })
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
