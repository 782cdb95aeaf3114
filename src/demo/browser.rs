//! Opens the page.

use std::process::{Command, Stdio};

/// Asks the desktop to show `url`; says whether anything took it.
pub(super) fn open(url: &str) -> bool {
    let openers = ["xdg-open", "open", "wslview"];
    openers.into_iter().any(|opener| {
        let mut command = Command::new(opener);
        command
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().is_ok()
    })
}
