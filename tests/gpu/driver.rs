//! A fake NVML library in a folder of its own, whose answers a test writes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sidescale::gpu::{Selector, Settings};

/// One folder with a copy of the library and its `state`; removed at the end.
#[derive(Debug)]
pub(crate) struct Driver {
    folder: PathBuf,
}

/// What a fake device answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gpu {
    pub(crate) percent: u32,
    pub(crate) used_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) milliwatts: u32,
    /// NVML's code at opening it; 4 is "no permission".
    pub(crate) open: u32,
    /// NVML's code at reading it; 16 is "reset required".
    pub(crate) read: u32,
    pub(crate) mig: bool,
}

/// NVML's code for a device of another container.
pub(crate) const NO_PERMISSION: u32 = 4;
/// NVML's code for a driver that is not loaded yet.
pub(crate) const DRIVER_NOT_LOADED: u32 = 9;
/// NVML's code for a device that must be reset.
pub(crate) const RESET_REQUIRED: u32 = 16;

impl Driver {
    pub(crate) fn new(gpus: &[Gpu]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = scratch().join(format!("driver-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        // A copy, so that the loader gives every test its own.
        std::fs::copy(library(), folder.join("libnvidia-ml.so.1")).expect("the copy is writable");
        let driver = Self { folder };
        driver.show(gpus);
        driver
    }

    pub(crate) fn settings(&self, devices: Option<&[&str]>) -> Settings {
        let read = |name: &&str| name.parse::<Selector>().expect("the test names a device");
        Settings {
            devices: devices.map(|names| names.iter().map(read).collect()),
            library: Some(self.folder.join("libnvidia-ml.so.1")),
        }
    }

    pub(crate) fn show(&self, gpus: &[Gpu]) {
        self.write(0, false, gpus);
    }

    pub(crate) fn refuse_to_start(&self, code: u32) {
        self.write(code, false, &[]);
    }

    pub(crate) fn hang(&self, gpus: &[Gpu]) {
        self.write(0, true, gpus);
    }

    /// How often NVML was started.
    pub(crate) fn starts(&self) -> usize {
        std::fs::read(self.folder.join("starts")).map_or(0, |bytes| bytes.len())
    }

    fn write(&self, init: u32, hang: bool, gpus: &[Gpu]) {
        let mut lines = vec![format!("init {init}\nhang {}", u8::from(hang))];
        lines.extend(gpus.iter().map(|gpu| {
            format!(
                "gpu {} {} {} {} {} {} {}",
                gpu.percent,
                gpu.used_bytes,
                gpu.total_bytes,
                gpu.milliwatts,
                gpu.open,
                gpu.read,
                u8::from(gpu.mig),
            )
        }));
        let state = lines.join("\n") + "\n";
        // Renamed into place: the library must not read half a file.
        let draft = self.folder.join("state.new");
        std::fs::write(&draft, state).expect("the driver's folder is writable");
        std::fs::rename(draft, self.folder.join("state")).expect("the driver's folder is writable");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A folder that is left over harms nobody.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Compiles the library, once per test process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gpu/fake_nvml.c");
        let library = scratch().join("fake-nvml.so");
        // Compiled aside and renamed, so that two test processes do not read each other's half a file.
        let output = scratch().join(format!("fake-nvml-{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&output)
            .arg(source)
            .arg("-ldl")
            .status();
        match compiled {
            Ok(status) if status.success() => {
                std::fs::rename(output, &library).expect("the target folder is writable");
                library
            }
            Ok(status) => panic!("cc could not compile {source}: {status}"),
            Err(error) => panic!(
                "these tests compile a fake NVML library with `cc`, which does not start ({error}): install a C \
                 compiler (Debian: apt-get install gcc libc6-dev)"
            ),
        }
    })
}
