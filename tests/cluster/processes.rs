//! Child processes that end with the test run: by their ids, also when a test panics or the run itself is killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// One child process. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What can be sent to a [`Process`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Please end.
    Term,
    /// End, now.
    Kill,
    /// Stop where you are: a process that the scheduler, a debugger or a live migration forgot.
    Stop,
    /// Go on.
    Continue,
}

type Order = (Command, SyncSender<io::Result<Child>>);

// === impl Process ===

impl Process {
    /// Starts `command`; what it says goes to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(Self {
            name: name.to_owned(),
            child: spawn(command)?,
            log: log.to_path_buf(),
        })
    }

    /// What it was started as.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends `signal`.
    #[expect(unsafe_code, reason = "std sends SIGKILL only")]
    pub(crate) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        let id = libc::pid_t::try_from(self.child.id()).expect("the system's ids fit its own type");
        // SAFETY: kill(2) touches no memory. The child is not yet waited for (only `ended` and `drop` do, and they
        // need `&mut self`), so the id is still its own.
        let sent = unsafe { libc::kill(id, signal) };
        assert_eq!(sent, 0, "{} (id {id}) cannot be signalled", self.name);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("the child is ours to wait for")
    }

    /// All that it has said so far.
    pub(crate) fn said(&self) -> String {
        // Read as bytes: a process that was killed may leave half a character.
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last lines that it said, for a failure's message.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has ended already is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The folder of this run, named by its process, below Cargo's own folder for tests.
///
/// Those of runs that are gone are removed: a control plane leaves 150 MB of preallocated log behind, and the logs of the
/// last run are what a person wants to read.
pub(crate) fn run_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
        let folder = root.join(std::process::id().to_string());
        fs::create_dir_all(&folder).expect("Cargo's folder for tests can be written");
        for other in fs::read_dir(&root).into_iter().flatten().flatten() {
            let is_gone = !Path::new("/proc").join(other.file_name()).exists();
            if cfg!(target_os = "linux") && is_gone {
                // Another run may be removing the same folder.
                fs::remove_dir_all(other.path()).ok();
            }
        }
        folder
    })
}

/// Spawns from one thread that lives as long as the run: the death signal of a child is tied to the *thread* that
/// started it, so children started by a test's own thread would die when that test ends.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, taken) = sync_channel::<Order>(8);
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (command, answer) in taken {
                    // Whoever ordered it waits for the answer without a limit.
                    answer.send(spawn_here(command)).ok();
                }
            })
            .expect("the system has a thread left");
        Mutex::new(orders)
    });
    let (answer, answered) = sync_channel(1);
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}

#[expect(unsafe_code, reason = "asks the kernel to end the child with us")]
fn spawn_here(mut command: Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl(2) and getppid(2). Nothing allocates
    // and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The run may have died between fork and prctl: then no signal would ever come.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}
