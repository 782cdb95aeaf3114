//! What NVML shows here, for people: the answer of `sidescale gpu`.

use std::fmt;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::nvml::{self, Error};
use super::{Sample, Settings};

/// What NVML shows in this container.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The driver's version, where it tells.
    pub driver: Option<String>,
    /// The devices that would be sampled.
    pub devices: Vec<Listed>,
}

/// One device.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its index or the name by which it was asked for.
    pub name: String,
    /// Its UUID, the same in every container; empty where it does not tell.
    pub uuid: String,
    /// The product, such as `NVIDIA H100 80GB HBM3`; empty where it does not tell.
    pub model: String,
    /// What a sample of this device alone would be, or why there is none.
    pub sample: Result<Sample, String>,
}

/// Reads every device once. Blocking: NVML takes some hundred milliseconds to start.
pub fn describe(settings: &Settings) -> Result<Listing, Error> {
    let nvml = nvml::open(settings)?;
    let devices = nvml::devices(&nvml, settings)?
        .into_iter()
        .map(|(name, device)| Listed {
            name,
            uuid: device.uuid().unwrap_or_default(),
            model: device.name().unwrap_or_default(),
            sample: sample_of(&device),
        })
        .collect();
    Ok(Listing {
        driver: nvml.sys_driver_version().ok(),
        devices,
    })
}

fn sample_of(device: &Device<'_>) -> Result<Sample, String> {
    let rates = device.utilization_rates().map_err(|error| {
        if matches!(error, NvmlError::NotSupported) {
            nvml::why_silent(device).to_owned()
        } else {
            error.to_string()
        }
    })?;
    Ok(nvml::one_device(device, rates.gpu))
}

// === impl Listing ===

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.driver.as_deref().unwrap_or("of unknown version");
        writeln!(f, "driver {driver}, {} GPU(s)", self.devices.len())?;
        for device in &self.devices {
            writeln!(f, "{device}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GIB: f64 = 1_073_741_824.0;
        write!(f, "{}  {}  {}  ", self.name, self.model, self.uuid)?;
        match &self.sample {
            Ok(sample) => write!(
                f,
                "{:.0} % busy  {:.1} of {:.1} GiB  {:.0} W",
                sample.utilization * 100.0,
                sample.memory_used_bytes as f64 / GIB,
                sample.memory_total_bytes as f64 / GIB,
                sample.power_watts,
            ),
            Err(reason) => write!(f, "no signal: {reason}"),
        }
    }
}
