//! How a device is named: as in `NVIDIA_VISIBLE_DEVICES`, by index, by UUID, or as a MIG slice of an index.

use std::fmt;
use std::str::FromStr;

/// One device of an explicit list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// The device with this NVML index, counted in this container.
    Index(u32),
    /// `gpu:slice`: a MIG slice of the device with an index.
    Slice(u32, u32),
    /// A UUID such as `GPU-1c2d...` or `MIG-5e6f...`, the same in every container.
    Uuid(String),
}

/// What is wrong with the name of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` names no GPU (write an index such as 0, a MIG slice such as 0:1, or a UUID that starts with GPU- or MIG-)"
)]
pub struct NotADevice {
    given: String,
}

impl FromStr for Selector {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let wrong = || NotADevice {
            given: text.to_owned(),
        };
        let name = text.trim();
        if name.starts_with("GPU-") || name.starts_with("MIG-") {
            // A NUL cannot be passed to C.
            return if name.contains('\0') {
                Err(wrong())
            } else {
                Ok(Self::Uuid(name.to_owned()))
            };
        }
        let number = |digits: &str| digits.parse().map_err(|_not_a_number| wrong());
        match name.split_once(':') {
            Some((gpu, slice)) => Ok(Self::Slice(number(gpu)?, number(slice)?)),
            None => number(name).map(Self::Index),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Slice(index, slice) => write!(f, "{index}:{slice}"),
            Self::Uuid(uuid) => f.write_str(uuid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_the_container_runtime_names_them() {
        for (text, selector) in [
            ("0", Selector::Index(0)),
            (" 12 ", Selector::Index(12)),
            ("1:3", Selector::Slice(1, 3)),
            ("GPU-8f1c", Selector::Uuid("GPU-8f1c".to_owned())),
            ("MIG-77", Selector::Uuid("MIG-77".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(selector.clone()), "{text}");
            assert_eq!(selector.to_string(), text.trim());
        }
    }

    #[test]
    fn a_name_that_is_no_device_is_refused_with_what_was_given() {
        for text in ["", "-1", "first", "0:", "0:1:2", "GPU-\0"] {
            let error = text.parse::<Selector>().expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
