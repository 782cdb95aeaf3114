//! What the command line takes and what it refuses.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    given: Given,
}

fn read(line: &str) -> Result<Config, Vec<ConfigError>> {
    let words = ["run"].into_iter().chain(line.split_whitespace());
    let line = Line::try_parse_from(words);
    line.unwrap_or_else(|error| panic!("clap refuses it: {error}"))
        .given
        .into_config()
}

#[derive(Debug, Parser)]
struct LeadLine {
    #[command(flatten)]
    given: GivenLead,
}

fn read_lead(line: &str) -> Result<Config, Vec<ConfigError>> {
    let words = ["lead"].into_iter().chain(line.split_whitespace());
    let line = LeadLine::try_parse_from(words);
    line.unwrap_or_else(|error| panic!("clap refuses it: {error}"))
        .given
        .into_config()
}

fn refusal(line: &str) -> String {
    joined(&read(line).expect_err(line))
}

fn joined(errors: &[ConfigError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn the_defaults_are_valid_and_those_of_the_design() {
    let config = read("").expect("defaults are valid");
    assert_eq!(config.routes[0].listen.port(), 8080);
    assert_eq!((config.admin.port(), config.member.port()), (9090, 9190));
    assert_eq!(config.upstream_ready, UpstreamReady::Tcp);
    assert_eq!(config.election.lease_duration, Duration::from_secs(15));
    assert!(config.cluster.is_some());
    let named = read("--target deployment/bert").expect("valid").cluster;
    assert_eq!(
        named.and_then(|cluster| cluster.target).as_deref(),
        Some("bert")
    );
    assert!(read("--no-cluster").expect("valid").cluster.is_none());
}

#[test]
fn the_servers_metrics_are_where_the_flag_says() {
    assert_eq!(read("").expect("valid").server_metrics, None);
    let config = read("--server-metrics http://127.0.0.1:8002/metrics").expect("valid");
    let expected = "http://127.0.0.1:8002".parse().expect("a URL");
    assert_eq!(config.server_metrics, Some(expected));
    let wrong = Line::try_parse_from(["run", "--server-metrics", "https://model"]);
    let wrong = wrong.expect_err("TLS is not spoken").to_string();
    assert!(wrong.contains("http://127.0.0.1:8002/metrics"), "{wrong}");
}

#[test]
fn a_limit_has_a_queue_and_a_queue_a_limit() {
    assert_eq!(read("").expect("valid").limit, None);
    let given = |line| read(line).expect(line).limit.expect("a limit");
    let limit = given("--max-concurrent 8");
    assert_eq!((limit.concurrent, limit.queued), (8, 80));
    assert_eq!(limit.wait, Duration::from_secs(30));
    let limit = given("--max-concurrent 8 --max-queued 0 --queue-timeout 2s");
    assert_eq!((limit.queued, limit.wait), (0, Duration::from_secs(2)));
    assert!(refusal("--max-queued 8").contains("without --max-concurrent"));
    assert!(refusal("--max-concurrent 0").contains("no request pass"));
    let late = refusal("--max-concurrent 1 --queue-timeout 0s");
    assert!(late.contains("--queue-timeout"), "{late}");
}

#[test]
fn listeners_and_upstreams_come_in_pairs_in_their_order() {
    let line =
        "--listen 0.0.0.0:1 --listen 0.0.0.0:2 --upstream 127.0.0.1:3 --upstream 127.0.0.1:4";
    let routes = read(line).expect("valid").routes;
    let ports: Vec<_> = routes
        .iter()
        .map(|route| {
            (
                route.listen.port(),
                route.upstream.address().map(|it| it.port()),
            )
        })
        .collect();
    assert_eq!(ports, [(1, Some(3)), (2, Some(4))]);
    let routes = read("--upstream unix:/run/model.sock")
        .expect("valid")
        .routes;
    assert_eq!(routes[0].upstream.address(), None);
    assert!(refusal("--listen 0.0.0.0:1,0.0.0.0:2").contains("2 of --listen but 1 of --upstream"));
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_value_and_remedy() {
    let check = |line: &str, expected: &str| {
        let refusal = refusal(line);
        assert!(refusal.contains(expected), "{line}: {refusal}");
    };
    check(
        "--upstream 127.0.0.1:8080",
        "--upstream 127.0.0.1:8080 is where --listen takes requests",
    );
    check(
        "--admin 0.0.0.0:8080",
        "--listen and --admin are both 0.0.0.0:8080",
    );
    check(
        "--upstream-protocol h3",
        "`h3` is not spoken (auto, http1 or h2c)",
    );
    check("--upstream-ready http:health", "`http:health` is no probe");
    check("--upstream-ready udp", "`udp` is no probe");
    check(
        "--lease-duration 10ms",
        "--lease-duration 10ms is out of range (1s to 1h)",
    );
    // All at once, not one a try.
    check(
        "--upstream-protocol x --upstream-ready y",
        "`x` is not spoken",
    );
    check(
        "--upstream-protocol x --upstream-ready y",
        "`y` is no probe",
    );
}

#[test]
fn ports_left_to_the_system_never_meet() {
    assert!(read("--listen 127.0.0.1:0 --admin 127.0.0.1:0 --member 127.0.0.1:0").is_ok());
}

#[test]
fn a_sidecar_may_lead_unless_it_is_told_to_follow() {
    assert_eq!(read("").expect("valid").part, Part::Sidecar);
    assert_eq!(read("--follow").expect("valid").part, Part::Follower);
    let refused = refusal("--follow --no-cluster");
    assert!(
        refused.contains("--follow says nothing with --no-cluster"),
        "{refused}"
    );
}

#[test]
fn a_lead_is_a_sidecar_without_a_server_and_with_a_target() {
    let lead = read_lead("--target deployment/bert --namespace ml").expect("valid");
    let run = read("--target deployment/bert --namespace ml").expect("valid");
    assert_eq!((lead.part, lead.routes.len()), (Part::Lead, 0));
    assert_eq!(lead.cluster, run.cluster);
    assert_eq!(lead.election, run.election);
    assert_eq!((lead.admin, lead.member), (run.admin, run.member));
    assert_eq!(lead.policy, run.policy);
    for flag in [
        "--listen 1.2.3.4:5",
        "--upstream 1.2.3.4:5",
        "--no-cluster",
        "--follow",
    ] {
        let words = ["lead", "--target", "bert"].into_iter();
        let line = LeadLine::try_parse_from(words.chain(flag.split_whitespace()));
        assert!(line.is_err(), "{flag}");
    }
}

#[test]
fn a_lead_that_could_not_be_one_is_refused_with_all_that_is_wrong() {
    let check = |line: &str, expected: &[&str]| {
        let refused = joined(&read_lead(line).expect_err(line));
        for words in expected {
            assert!(refused.contains(words), "{line}: {words} not in {refused}");
        }
    };
    check("", &["--target is missing", "name the Deployment"]);
    check("--target deployment/", &["--target is missing"]);
    let long = format!("--target {}", "a".repeat(64));
    check(&long, &["63 characters", "sidescale.dev/lead"]);
    check(
        "--admin 0.0.0.0:9190 --retry-period 1ms",
        &[
            "--admin and --member are both",
            "--retry-period 1ms",
            "--target",
        ],
    );
}
