//! The conversation with NVML itself: start it, find the devices, read them.
//!
//! Process lists are never asked for: NVML 535 changed the layout of their entries and crashes callers built for
//! another version.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{Sample, Selector, Settings};

/// Where NVIDIA's container runtime mounts the library, as the loader knows it.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// Why the GPUs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library cannot be loaded: no GPU container.
    #[error(
        "cannot load the NVML library `{library}` (in a GPU pod the NVIDIA container runtime provides it to containers \
         with NVIDIA_VISIBLE_DEVICES set and NVIDIA_DRIVER_CAPABILITIES including `utility`)"
    )]
    Library {
        /// The file that was looked for.
        library: String,
        /// The loader's words.
        #[source]
        source: NvmlError,
    },
    /// The library is there but does not start, or went away after it had been loaded.
    #[error("cannot start NVML")]
    Start(#[source] NvmlError),
    /// The devices cannot be counted.
    #[error("cannot count the GPUs")]
    Count(#[source] NvmlError),
    /// A device of the list is not there, or not for this container.
    #[error("cannot open GPU `{device}` (NVML shows {count} here; `sidescale gpu` lists them)")]
    Open {
        /// The device as it was given.
        device: String,
        /// Devices that NVML counts.
        count: u32,
        /// NVML's words.
        #[source]
        source: NvmlError,
    },
    /// A device does not answer.
    #[error("cannot read GPU `{device}`")]
    Read {
        /// The device's index or UUID.
        device: String,
        /// NVML's words.
        #[source]
        source: NvmlError,
    },
    /// The driver has not answered for this long.
    #[error("the GPU driver has not answered for {0:?}")]
    Silent(Duration),
    /// The thread that holds NVML has ended.
    #[error("the thread that reads the GPUs has ended")]
    Gone,
}

/// One reading of all devices.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The devices that report utilisation, joined; `None` if none does.
    pub(super) sample: Option<Sample>,
    /// The devices that do not, and why.
    pub(super) silent: BTreeMap<String, String>,
}

/// NVML between two readings: open while all is well, closed after an error, so that the next reading starts anew.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    nvml: Option<Nvml>,
    /// Whether the library was ever loaded; if so, one that cannot be loaded is being replaced, not missing.
    was_open: bool,
}

// === impl Session ===

impl Session {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            nvml: None,
            was_open: false,
        }
    }

    pub(super) fn read(&mut self) -> Result<Reading, Error> {
        let reading = self.opened().and_then(|(nvml, settings)| {
            let mut reading = Reading::default();
            for (name, device) in devices(nvml, settings)? {
                add(&mut reading, name, &device)?;
            }
            if let Some(sample) = &mut reading.sample {
                sample.utilization /= f64::from(sample.devices);
            }
            Ok(reading)
        });
        if reading.is_err() {
            // Handles of a driver that was reset stay dead; only a new start gives live ones.
            self.nvml = None;
        }
        reading
    }

    fn opened(&mut self) -> Result<(&Nvml, &Settings), Error> {
        if self.nvml.is_none() {
            let opened = open(&self.settings);
            self.nvml = Some(match opened {
                Err(Error::Library { source, .. }) if self.was_open => {
                    return Err(Error::Start(source));
                }
                opened => opened?,
            });
            self.was_open = true;
        }
        let nvml = self.nvml.as_ref().expect("it was opened just above");
        Ok((nvml, &self.settings))
    }
}

/// Loads the library and starts it.
pub(super) fn open(settings: &Settings) -> Result<Nvml, Error> {
    let library = settings
        .library
        .as_deref()
        .map_or(OsStr::new(DEFAULT_LIBRARY), |path| path.as_os_str());
    Nvml::builder().lib_path(library).init().map_err(|source| {
        if matches!(source, NvmlError::LibloadingError(_)) {
            let library = library.to_string_lossy().into_owned();
            Error::Library { library, source }
        } else {
            Error::Start(source)
        }
    })
}

/// The devices to read with a name for the log: those of the list, or all that this container may open.
pub(super) fn devices<'nvml>(
    nvml: &'nvml Nvml,
    settings: &Settings,
) -> Result<Vec<(String, Device<'nvml>)>, Error> {
    let count = nvml.device_count().map_err(Error::Count)?;
    let Some(selectors) = &settings.devices else {
        return visible(nvml, count);
    };
    let mut devices = BTreeMap::new();
    for selector in selectors {
        let opened = match selector {
            Selector::Index(index) => nvml.device_by_index(*index),
            Selector::Slice(index, slice) => nvml
                .device_by_index(*index)
                .and_then(|gpu| gpu.mig_device_by_index(*slice)),
            Selector::Uuid(uuid) => nvml.device_by_uuid(uuid.as_str()),
        };
        let found = opened.and_then(|device| Ok((device.uuid()?, device)));
        let (uuid, device) = found.map_err(|source| Error::Open {
            device: selector.to_string(),
            count,
            source,
        })?;
        // By UUID, so that `0,GPU-...` naming one device twice does not count it twice.
        devices.insert(uuid, (selector.to_string(), device));
    }
    Ok(devices.into_values().collect())
}

fn visible(nvml: &Nvml, count: u32) -> Result<Vec<(String, Device<'_>)>, Error> {
    let mut devices = Vec::new();
    for index in 0..count {
        match nvml.device_by_index(index) {
            Ok(device) => devices.push((index.to_string(), device)),
            // NVML counts devices that the container's cgroup keeps from us: they are somebody else's.
            Err(NvmlError::NoPermission) => {}
            Err(source) => {
                return Err(Error::Open {
                    device: index.to_string(),
                    count,
                    source,
                });
            }
        }
    }
    Ok(devices)
}

/// Adds `device` to the sums of `reading`; utilisation is divided by the number of devices at the end.
fn add(reading: &mut Reading, name: String, device: &Device<'_>) -> Result<(), Error> {
    match device.utilization_rates() {
        Ok(rates) => {
            let one = one_device(device, rates.gpu);
            let sum = reading.sample.get_or_insert_default();
            sum.devices += one.devices;
            sum.utilization += one.utilization;
            sum.memory_used_bytes += one.memory_used_bytes;
            sum.memory_total_bytes += one.memory_total_bytes;
            sum.power_watts += one.power_watts;
            Ok(())
        }
        Err(NvmlError::NotSupported) => {
            reading.silent.insert(name, why_silent(device).to_owned());
            Ok(())
        }
        Err(source) => Err(Error::Read {
            device: name,
            source,
        }),
    }
}

/// The sample of a device that is `percent` busy.
///
/// Memory and power are extras: virtual GPUs do not tell their power, and drivers before 510 do not know the call for
/// memory. Neither may cost the signal.
pub(super) fn one_device(device: &Device<'_>, percent: u32) -> Sample {
    let (used, total) = device
        .memory_info()
        .map_or((0, 0), |memory| (memory.used, memory.total));
    Sample {
        devices: 1,
        utilization: f64::from(percent.min(100)) / 100.0,
        memory_used_bytes: used,
        memory_total_bytes: total,
        power_watts: device
            .power_usage()
            .map_or(0.0, |milliwatts| f64::from(milliwatts) / 1000.0),
    }
}

/// Why a device does not support utilisation.
pub(super) fn why_silent(device: &Device<'_>) -> &'static str {
    // `MigMode` counts 1 as enabled; a slice itself has no mode but says that it is a slice.
    let in_slices = device.mig_mode().is_ok_and(|mode| mode.current == 1)
        || device.mig_is_mig_device_handle().unwrap_or(false);
    if in_slices {
        "NVML gives no utilisation for MIG devices; plan by concurrency or request rate instead"
    } else {
        "its driver gives no utilisation"
    }
}

/// An error with what caused it, for a line in the log.
pub(super) fn with_source(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
