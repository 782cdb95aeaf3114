//! A lost leader is replaced in the promised time, and the API server is not asked more for it than it must be.

use std::time::Duration;

use rand::RngExt as _;
use sidescale::leader::{Part, Timings};

use super::world::{Network, World};
use super::{hold, seeds};

/// What a few messages take in a good network.
const MESSAGES: Duration = Duration::from_millis(50);

/// A fleet that has had a leader for a while, and the leader.
fn settled(seed: u64, size: usize) -> (World, usize) {
    let mut world = World::new(seed, size, Network::GOOD, 0.0);
    let settled = Duration::from_millis(20_000 + world.rng.random_range(0..4_000));
    world.run(settled);
    let leader = world.leader();
    hold(
        &world,
        leader.is_some(),
        "a fleet in a good network has a leader",
    );
    hold(&world, world.reigns.len() == 1, "it is the first one");
    (world, leader.unwrap_or_default())
}

/// How long it takes until somebody leads, from now on; at most `limit`.
fn takeover(world: &mut World, limit: Duration) -> Duration {
    let from = world.now;
    let found = world.run_until(from + limit, |world| world.leader().is_some());
    hold(
        world,
        found,
        &format!("nobody leads {limit:?} after the leader was lost"),
    );
    world.now.saturating_sub(from)
}

#[test]
fn a_fleet_that_starts_has_a_leader_within_a_second() {
    for seed in seeds(200) {
        let mut world = World::new(
            seed,
            1 + usize::try_from(seed % 50).expect("small"),
            Network::GOOD,
            0.0,
        );
        takeover(&mut world, Duration::from_secs(1));
    }
}

#[test]
fn a_lost_leader_is_replaced_within_lease_duration_and_retry_period_while_a_standby_lives() {
    let timings = Timings::default();
    for seed in seeds(300) {
        let size = 2 + usize::try_from(seed % 40).expect("small");
        let (mut world, leader) = settled(seed, size);
        let standbys = world.standbys(leader);
        world.crash(leader);
        if standbys.len() == 2 && world.rng.random_bool(0.5) {
            let unlucky = standbys[usize::from(world.seed() % 2 == 0)];
            world.crash(unlucky);
        }
        let _took = takeover(
            &mut world,
            timings.lease_duration() + timings.retry_period(),
        );
    }
}

#[test]
fn with_all_standbys_lost_too_it_takes_at_most_four_lease_durations() {
    let timings = Timings::default();
    for seed in seeds(300) {
        let size = 4 + usize::try_from(seed % 60).expect("small");
        let (mut world, leader) = settled(seed, size);
        for standby in world.standbys(leader) {
            world.crash(standby);
        }
        world.crash(leader);
        takeover(&mut world, timings.lease_duration() * 4);
    }
}

#[test]
fn a_leader_that_says_goodbye_is_followed_by_its_successor_in_milliseconds() {
    for seed in seeds(300) {
        let (mut world, leader) = settled(seed, 2 + usize::try_from(seed % 20).expect("small"));
        let successor = world.standbys(leader)[0];
        world.release(leader);
        let took = takeover(&mut world, MESSAGES);
        hold(
            &world,
            world.leads(successor),
            &format!("the named successor leads, after {took:?}"),
        );
    }
}

#[test]
fn a_goodbye_that_nobody_hears_costs_a_retry_period() {
    for seed in seeds(100) {
        let (mut world, leader) = settled(seed, 5);
        world.deafen(leader, Duration::from_secs(60));
        world.release(leader);
        takeover(&mut world, Timings::default().retry_period() + MESSAGES);
    }
}

#[test]
fn with_the_api_server_away_nobody_leads_past_the_renew_deadline_and_soon_after_it_is_back_one_does()
 {
    let timings = Timings::default();
    for seed in seeds(200) {
        let size = 1 + usize::try_from(seed % 30).expect("small");
        let (mut world, _leader) = settled(seed, size);
        world.down_until = world.now + Duration::from_secs(60);
        world.run(timings.renew_deadline() + Duration::from_millis(1));
        hold(
            &world,
            world.leader().is_none(),
            "a claim outlived its renew deadline",
        );
        let back = world.down_until.saturating_sub(world.now);
        world.run(back);
        hold(
            &world,
            world.leader().is_none(),
            "nobody can lead without the API server",
        );
        // A request that was under way when it came back is given up first.
        let limit = timings.request_timeout() + timings.retry_period() * 2;
        takeover(&mut world, limit);
        world.run(Duration::from_secs(5));
        hold(&world, world.violations.is_empty(), "two led");
    }
}

#[test]
fn members_that_hear_no_beacons_leave_a_living_leader_alone() {
    for seed in seeds(50) {
        let (mut world, leader) = settled(seed, 6);
        for index in 0..world.nodes.len() {
            if index != leader {
                world.deafen(index, Duration::from_secs(600));
            }
        }
        world.run(Duration::from_secs(300));
        hold(
            &world,
            world.leads(leader) && world.reigns.len() == 1,
            "the leader was replaced",
        );
    }
}

#[test]
fn the_load_on_the_api_server_does_not_grow_with_the_fleet() {
    let asked = |size| {
        let (mut world, _leader) = settled(7, size);
        world.store.asked.clear();
        world.run(Duration::from_secs(60));
        let of = |verb| world.store.asked.get(verb).copied().unwrap_or(0);
        (of("get lease"), of("put lease"))
    };
    let (few, many) = (asked(3), asked(50));
    assert_eq!(few.0, 0, "three members do not poll");
    assert_eq!(many.0, 0, "fifty members do not poll");
    // One renewal each retry period.
    assert!(
        (29..=31).contains(&few.1) && (29..=31).contains(&many.1),
        "{few:?} {many:?}"
    );
}

/// Two leads and some sidecars, one of which leads: the leads are not there yet.
fn led_by_a_sidecar(seed: u64) -> World {
    let sidecars = 2 + usize::try_from(seed % 20).expect("small");
    let mut parts = vec![Part::Lead; 2];
    parts.extend(vec![Part::Sidecar; sidecars]);
    let mut world = World::of(seed, &parts, Network::GOOD, 0.0);
    world.crash(0);
    world.crash(1);
    // Should one of them have won at once, it takes its Lease along.
    world.run(Duration::from_secs(40));
    let leader = world.leader();
    hold(&world, leader >= Some(2), "a sidecar leads");
    world
}

/// From the first second in which a lead is there: it counts after a lease duration, at the leader's next second.
fn counts_after() -> Duration {
    Timings::default().lease_duration() + Duration::from_secs(2)
}

#[test]
fn a_lead_that_comes_takes_over_from_a_sidecar_in_milliseconds_and_never_by_force() {
    for seed in seeds(200) {
        let mut world = led_by_a_sidecar(seed);
        let reigns = world.reigns.len();
        world.restart_in(0, Duration::ZERO);
        let end = world.now + counts_after();
        let yielded = world.run_until(end, |world| world.leader().is_none());
        hold(&world, yielded, "the sidecar gives up");
        let took = takeover(&mut world, MESSAGES);
        hold(
            &world,
            world.leads(0),
            &format!("the lead leads, after {took:?}"),
        );
        world.run(Duration::from_secs(60));
        hold(
            &world,
            world.leads(0) && world.reigns.len() == reigns + 1,
            "and goes on",
        );
    }
}

#[test]
fn a_killed_lead_is_followed_by_its_twin_and_both_by_a_sidecar_until_one_is_back() {
    let timings = Timings::default();
    let promised = timings.lease_duration() + timings.retry_period();
    for seed in seeds(200) {
        let mut world = led_by_a_sidecar(seed);
        world.restart_in(0, Duration::ZERO);
        world.restart_in(1, Duration::ZERO);
        world.run(counts_after() + MESSAGES);
        hold(&world, world.leads(0), "the older lead leads");
        world.run(Duration::from_secs(5));
        world.crash(0);
        takeover(&mut world, promised);
        hold(&world, world.leads(1), "its twin leads");
        world.run(Duration::from_secs(5));
        world.crash(1);
        takeover(&mut world, promised);
        hold(&world, world.leader() >= Some(2), "a sidecar leads");
        world.run(Duration::from_secs(5));
        world.restart_in(1, Duration::ZERO);
        world.run(counts_after() + MESSAGES);
        hold(&world, world.leads(1), "a lead leads again");
    }
}

#[test]
fn a_lead_that_dies_when_it_was_named_costs_a_retry_period() {
    let timings = Timings::default();
    for seed in seeds(200) {
        let mut world = led_by_a_sidecar(seed);
        world.restart_in(0, Duration::ZERO);
        let end = world.now + counts_after();
        let yielded = world.run_until(end, |world| world.leader().is_none());
        hold(&world, yielded, "the sidecar gives up");
        world.crash(0);
        takeover(&mut world, timings.retry_period().mul_f64(1.2) + MESSAGES);
    }
}

#[test]
fn followers_ask_the_api_server_for_nothing_whether_one_leads_or_none() {
    for leads in [1, 0] {
        let mut parts = vec![Part::Lead; leads];
        parts.extend(vec![Part::Follower; 20]);
        let mut world = World::of(7, &parts, Network::GOOD, 0.0);
        world.run(Duration::from_secs(60));
        let asked: u32 = world.store.asked.values().sum();
        assert_eq!(world.leader().is_some(), leads == 1);
        if leads == 0 {
            assert_eq!(asked, 0);
            continue;
        }
        let of = |verb| world.store.asked.get(verb).copied().unwrap_or(0);
        assert!(of("get lease") <= 2, "{:?}", world.store.asked);
    }
}
