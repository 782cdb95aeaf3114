//! How far a command is, for somebody who waits.

use std::io::{IsTerminal as _, Write as _};

use crate::simulate::Progress;

/// How far it is, in one line of a terminal; nothing where nobody looks.
#[derive(Debug)]
pub(super) struct Bar {
    is_shown: bool,
    width: usize,
}

// === impl Bar ===

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            width: 0,
        }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        const CELLS: usize = 30;
        let Progress {
            done,
            traces,
            share,
        } = progress;
        let percent = (100.0 * share).min(100.0);
        let filled = (0..CELLS)
            .filter(|cell| (*cell as f64) < share * CELLS as f64)
            .count();
        let bar = "#".repeat(filled) + &".".repeat(CELLS - filled);
        self.draw(&format!(
            "[{bar}] {percent:3.0} %, {done} of {traces} traces"
        ));
    }

    pub(super) fn clear(&mut self) {
        let blank = " ".repeat(self.width);
        self.draw(&blank);
        self.draw("");
    }

    fn draw(&mut self, line: &str) {
        if self.is_shown {
            self.width = line.len();
            let mut stderr = std::io::stderr();
            // A bar that cannot be drawn is not worth failing for.
            drop(write!(stderr, "\r{line}\r").and_then(|()| stderr.flush()));
        }
    }
}
