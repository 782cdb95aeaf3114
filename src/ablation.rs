//! Parts of the forecast and of the plan that a simulation may take away, to show what each of them earns.

/// Which parts work; a leader has them all.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a part that is there or not; all combinations are valid"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Every way to look ahead; without, only the present and peaks of the past are looked at.
    pub forecast: bool,
    /// Days, weeks and other periods.
    pub seasons: bool,
    /// The forecaster's quantiles.
    pub quantiles: bool,
    /// Their correction by the forecast's own record.
    pub calibration: bool,
    /// Following the way to decide that would have cost least; without, the first is kept for ever.
    pub tuning: bool,
}

// === impl Parts ===

impl Parts {
    /// All of them.
    pub const ALL: Self = Self {
        forecast: true,
        seasons: true,
        quantiles: true,
        calibration: true,
        tuning: true,
    };
}
