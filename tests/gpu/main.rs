//! The GPU signal through the real nvml-wrapper, against a fake `libnvidia-ml.so.1` that the tests compile.
//!
//! One binary: the library is compiled once, and each test loads its own copy.

mod driver;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sidescale::clock::{Clock, Timestamp};
use sidescale::gpu::{self, Sample, Settings};
use sidescale::lifecycle::Tasks;
use sidescale::report::GpuReading;
use tokio::sync::watch;
use tracing::subscriber::DefaultGuard;

use crate::driver::{DRIVER_NOT_LOADED, Driver, Gpu, NO_PERMISSION, RESET_REQUIRED};

/// Ten times as fast as life: a second's period passes in 100 ms, and the driver still has 500 ms to answer.
fn clock() -> Clock {
    Clock::scaled(Timestamp::from_secs(0), 10.0)
}

fn busy(percent: u32) -> Gpu {
    Gpu {
        percent,
        used_bytes: 10,
        total_bytes: 80,
        milliwatts: 300_000,
        ..Gpu::default()
    }
}

/// Waits until the signal is as asked; a minute of life is far more than it takes.
async fn until(
    signal: &mut watch::Receiver<Option<Sample>>,
    mut condition: impl FnMut(Option<Sample>) -> bool,
) -> Option<Sample> {
    let patience = Duration::from_secs(600);
    let last = *signal.borrow();
    let waited = clock()
        .timeout(patience, signal.wait_for(|sample| condition(*sample)))
        .await;
    match waited {
        Ok(sample) => *sample.expect("the sender lives as long as its tasks"),
        Err(error) => panic!("the signal stayed {last:?}: {error}"),
    }
}

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

#[tokio::test]
async fn the_mean_over_two_devices_is_the_utilisation_of_the_pod() {
    let driver = Driver::new(&[busy(40), busy(80)]);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    let sample = until(&mut signal, |sample| sample.is_some()).await;
    let reading = GpuReading::from(sample.expect("it was waited for"));
    assert_eq!(reading.devices, 2);
    assert!(near(reading.utilization, 0.6), "{reading:?}");
    assert_eq!(
        (reading.memory_used_bytes, reading.memory_total_bytes),
        (20, 160)
    );
    assert!(near(reading.power_watts, 600.0), "{reading:?}");
    driver.show(&[busy(100), busy(90)]);
    until(&mut signal, |sample| {
        sample.is_some_and(|sample| near(sample.utilization, 0.95))
    })
    .await;
    assert_eq!(driver.starts(), 1, "NVML is started once, not every second");
}

#[tokio::test]
async fn a_driver_reset_makes_the_signal_absent_and_it_comes_back() {
    let log = Log::start();
    let driver = Driver::new(&[busy(40), busy(80)]);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    until(&mut signal, |sample| sample.is_some()).await;
    let broken = Gpu {
        read: RESET_REQUIRED,
        ..busy(80)
    };
    driver.show(&[busy(40), broken]);
    until(&mut signal, |sample| sample.is_none()).await;
    // Three more attempts, and still one line.
    let clock = clock();
    while driver.starts() < 4 {
        clock.sleep(Duration::from_millis(100)).await;
    }
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("GPU `1`"), "{warnings:?}");
    assert!(warnings[0].contains("requires a reset"), "{warnings:?}");
    driver.show(&[busy(10), busy(20)]);
    let sample = until(&mut signal, |sample| sample.is_some()).await;
    assert!(sample.is_some_and(|sample| near(sample.utilization, 0.15)));
    assert_eq!(log.lines("INFO").len(), 2, "there, and there again");
}

#[tokio::test]
async fn a_missing_library_is_one_line_and_an_absent_signal() {
    let log = Log::start();
    let settings = Settings {
        devices: None,
        library: Some(PathBuf::from("/nowhere/libnvidia-ml.so.1")),
    };
    let tasks = Tasks::here();
    let signal = gpu::sample(settings, clock(), &tasks);
    let clock = clock();
    while log.lines("").is_empty() {
        clock.sleep(Duration::from_millis(100)).await;
    }
    // Ten more periods bring no second line.
    clock.sleep(Duration::from_secs(10)).await;
    let lines = log.lines("");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("INFO"), "{lines:?}");
    assert!(lines[0].contains("/nowhere/libnvidia-ml.so.1"), "{lines:?}");
    assert_eq!(*signal.borrow(), None);
    assert!(
        signal.has_changed().is_ok(),
        "who waits for a change must not spin on a closed channel"
    );
}

#[tokio::test]
async fn a_driver_that_is_not_loaded_yet_is_tried_again() {
    let log = Log::start();
    let driver = Driver::new(&[]);
    driver.refuse_to_start(DRIVER_NOT_LOADED);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    let clock = clock();
    while driver.starts() < 2 {
        clock.sleep(Duration::from_millis(100)).await;
    }
    driver.show(&[busy(50)]);
    until(&mut signal, |sample| sample.is_some()).await;
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("cannot start NVML: NVIDIA driver is not loaded"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_driver_that_hangs_costs_the_signal_and_no_second_thread() {
    let log = Log::start();
    let driver = Driver::new(&[busy(40)]);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    until(&mut signal, |sample| sample.is_some()).await;
    driver.hang(&[busy(40)]);
    until(&mut signal, |sample| sample.is_none()).await;
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("has not answered for 5s"),
        "{warnings:?}"
    );
    driver.show(&[busy(70)]);
    until(&mut signal, |sample| sample.is_some()).await;
    assert_eq!(driver.starts(), 1);
}

#[tokio::test]
async fn a_mig_device_is_left_out_and_said_once() {
    let log = Log::start();
    let sliced = Gpu {
        mig: true,
        ..busy(0)
    };
    let driver = Driver::new(&[sliced, busy(30)]);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    let sample = until(&mut signal, |sample| sample.is_some()).await;
    let sample = sample.expect("it was waited for");
    assert_eq!(sample.devices, 1);
    assert!(near(sample.utilization, 0.3), "{sample:?}");
    driver.show(&[sliced, sliced]);
    until(&mut signal, |sample| sample.is_none()).await;
    let lines = log.lines("MIG");
    assert_eq!(lines.len(), 3, "device 0, then both: {lines:?}");
    assert!(lines[0].contains("INFO") && lines[0].contains("device=\"0\""));
}

#[tokio::test]
async fn devices_of_other_containers_are_not_ours() {
    let theirs = Gpu {
        open: NO_PERMISSION,
        ..busy(100)
    };
    let driver = Driver::new(&[theirs, busy(30)]);
    let tasks = Tasks::here();
    let mut signal = gpu::sample(driver.settings(None), clock(), &tasks);
    let sample = until(&mut signal, |sample| sample.is_some()).await;
    assert!(sample.is_some_and(|sample| sample.devices == 1 && near(sample.utilization, 0.3)));
}

#[tokio::test]
async fn an_explicit_list_counts_each_device_once() {
    let driver = Driver::new(&[busy(10), busy(20), busy(90)]);
    let tasks = Tasks::here();
    let settings = driver.settings(Some(&["1", "GPU-fake-2", "2"]));
    let mut signal = gpu::sample(settings, clock(), &tasks);
    let sample = until(&mut signal, |sample| sample.is_some()).await;
    assert!(sample.is_some_and(|sample| sample.devices == 2 && near(sample.utilization, 0.55)));
}

#[test]
fn what_nvml_shows_is_listed_for_people() {
    let virtual_gpu = Gpu {
        milliwatts: 0,
        ..busy(55)
    };
    let sliced = Gpu {
        mig: true,
        ..busy(0)
    };
    let driver = Driver::new(&[busy(40), virtual_gpu, sliced]);
    let listing = gpu::describe(&driver.settings(None)).expect("the fake driver answers");
    let text = listing.to_string();
    assert!(text.starts_with("driver 535.104.05, 3 GPU(s)\n"), "{text}");
    assert!(
        text.contains("0  Fake H100  GPU-fake-0  40 % busy"),
        "{text}"
    );
    assert!(text.contains("300 W"), "{text}");
    assert!(text.contains("55 % busy"), "{text}");
    assert!(
        text.contains("no signal: NVML gives no utilisation for MIG"),
        "{text}"
    );
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let driver = Driver::new(&[busy(40)]);
    for name in ["3", "GPU-fake-3", "GPU-other"] {
        let error = gpu::describe(&driver.settings(Some(&[name]))).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains("NVML shows 1 here"), "{error}");
    }
}

/// What this thread logs; the tests' runtimes have one thread.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

struct Log {
    lines: Lines,
    _guard: DefaultGuard,
}

impl Log {
    fn start() -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines that contain `word`.
    fn lines(&self, word: &str) -> Vec<String> {
        let bytes = self.lines.0.lock().expect("no test panics while it logs");
        String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| line.contains(word))
            .map(ToOwned::to_owned)
            .collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
