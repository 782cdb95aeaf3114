//! A world outside drives the turn line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use sidescale::baseline::World;
use sidescale::clock::Instant;

use crate::place::{Place, burst, command, done, in_world};

#[test]
fn a_world_outside_gets_the_same_decisions_as_the_one_inside() {
    let place = Place::new("driven");
    let text = burst(700);
    let trace = place.write("t.csv", &text);
    let file = place.path("inside.csv");
    done(&in_world(
        "simulate",
        &trace,
        &["--decisions", &file, "--policies", "sidescale"],
    ));

    let mut child = command(&in_world("simulate", "-", &["--decisions", "-"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = child.stdin.take().expect("piped");
    let mut answers = BufReader::new(child.stdout.take().expect("piped"));
    let counts: Vec<f64> = text
        .lines()
        .skip(1)
        .map(|line| {
            line.split_once(',')
                .expect("two fields")
                .1
                .parse()
                .expect("a count")
        })
        .collect();
    // 1.3 times the first minute's need.
    let first = 1.3 * counts[..60].iter().sum::<f64>() / 60.0 / 5.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a handful of pods"
    )]
    let mut world = World::new(
        first.ceil() as u32,
        5.0,
        Duration::from_secs(60),
        Duration::from_secs(2),
    );
    let mut decisions = vec!["offset_seconds,desired\n".to_owned()];
    let mut last = None;
    for (second, arrivals) in (0..).zip(counts) {
        let now = Instant::from_offset(Duration::from_secs(second));
        let served = world.pass(now, arrivals, &mut ());
        let (waiting, ready, starting) = (world.waiting(), world.ready(), world.starting());
        writeln!(
            lines,
            "{second},{arrivals},{waiting},{served},{ready},{starting}"
        )
        .expect("it reads");
        // It answers before it has seen the next line: there is none yet.
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it answers");
        let (offset, desired) = answer.trim_end().split_once(',').expect("two fields");
        assert_eq!(offset, second.to_string());
        let desired: u32 = desired.parse().expect("a number of pods");
        if last != Some(desired) {
            decisions.push(format!("{offset},{desired}\n"));
        }
        last = Some(desired);
        world.scale(now, desired);
    }
    drop(lines);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(decisions.concat(), place.read("inside.csv"));
}

#[test]
fn a_bad_line_ends_it_with_its_number_after_the_good_ones_were_answered() {
    let mut child = command(&in_world("simulate", "-", &["--decisions", "-"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = child.stdin.take().expect("piped");
    lines
        .write_all(b"offset_seconds,arrivals,waiting,served,pods_ready,pods_starting\n0,3,0,3,2,0\n1,3,0,3,two,0\n")
        .expect("it reads");
    drop(lines);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("standard input:3: expected a number of pods"),
        "{said}"
    );
    assert!(said.contains("`two`"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}
