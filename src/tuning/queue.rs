//! How many requests wait too long at pods of many slots that are not even full.
//!
//! A fluid that is below capacity never waits. Requests that take seconds each do: they come in bunches and end in
//! bunches, and with 0.95 of ten slots busy on the average, all ten are busy most of the time. Many slots behind one
//! balanced front are the queue M/M/m.

/// The share of requests that wait longer than `slo_secs` for one of `slots` to be free, where `rate` arrive a second and
/// `capacity` would be served if all slots were busy; both above 0, or the share is 0 or 1.
///
/// P(wait > t) = C exp(-(capacity - rate) t), Erlang's C for M/M/m approximated as rho^(sqrt(2 (m + 1)) - 1) (H. Sakasegawa,
/// An approximation formula Lq = a rho^b / (1 - rho), 1977): within 0.05 of it for up to a thousand slots.
pub(super) fn late_share(rate: f64, capacity: f64, slots: f64, slo_secs: f64) -> f64 {
    if rate <= 0.0 {
        return 0.0;
    }
    if rate >= capacity {
        return 1.0;
    }
    let busy = rate / capacity;
    // Fewer than one slot is one that is slow.
    let waits = busy.powf((2.0 * (slots.max(1.0) + 1.0)).sqrt() - 1.0);
    waits * (-(capacity - rate) * slo_secs).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Erlang's C by his recursion for B.
    fn erlang_c(slots: u32, busy: f64) -> f64 {
        let offered = busy * f64::from(slots);
        let blocked =
            (1..=slots).fold(1.0, |b, slot| offered * b / (f64::from(slot) + offered * b));
        blocked / (1.0 - busy * (1.0 - blocked))
    }

    #[test]
    fn who_has_to_wait_at_all_is_near_erlangs_c() {
        for slots in [1, 2, 4, 8, 16, 64, 256, 1_000] {
            for busy in [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99] {
                let (ours, exact) = (
                    late_share(busy, 1.0, f64::from(slots), 0.0),
                    erlang_c(slots, busy),
                );
                assert!(
                    (ours - exact).abs() < 0.05,
                    "{slots} at {busy}: {ours}, {exact}"
                );
            }
        }
    }

    #[test]
    fn a_single_slot_is_the_queue_m_m_1() {
        // rho exp(-(mu - lambda) t).
        let exact = 0.8 * (-0.4_f64).exp();
        assert!((late_share(0.8, 1.0, 1.0, 2.0) - exact).abs() < 1e-9);
    }

    #[test]
    fn nothing_waits_for_nothing_and_all_at_a_full_house() {
        assert!(late_share(0.0, 0.0, 0.0, 2.0).abs() < f64::EPSILON);
        for (rate, capacity) in [(5.0, 5.0), (5.0, 0.0), (6.0, 5.0)] {
            let share = late_share(rate, capacity, 40.0, 2.0);
            assert!((share - 1.0).abs() < f64::EPSILON, "{rate} of {capacity}");
        }
    }
}
