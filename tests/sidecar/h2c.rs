//! HTTP/2 with prior knowledge, on either side and on both.

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use http::{HeaderMap, Request, StatusCode};
use sidescale::proxy::{Health, Probe, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http2::{Client, FLOOD_FRAMES, Server, get, post, read_frame};
use crate::model_server::ModelServer;
use crate::pod::{Pod, chunk, full, within};

/// One of each kind, for what must not depend on it.
async fn upstreams() -> (ModelServer, Server) {
    (ModelServer::start().await, Server::start().await)
}

#[tokio::test]
async fn requests_of_http2_reach_a_server_of_either_kind() {
    let (http1, http2) = upstreams().await;
    for upstream in [http1.address, http2.address] {
        let pod = Pod::ready(upstream).await;
        let client = Client::connect(pod.address()).await;
        let hello = client.get("/").await.expect("answered");
        assert_eq!(
            (hello.status, &hello.body[..]),
            (StatusCode::OK, &b"hello"[..])
        );
        let sent: Bytes = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
        let echoed = client.post("/echo", sent.clone()).await.expect("answered");
        assert!(echoed.body == sent, "{} bytes", echoed.body.len());
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!((reading.completions, reading.failures()), (2, 0));
        assert_eq!(reading.bytes_out, 5 + sent.len() as u64);
    }
    assert_eq!((http1.requests(), http2.requests()), (2, 2));
}

#[tokio::test]
async fn a_client_of_http1_reaches_a_server_of_http2() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    assert_eq!(client.get("/").await.expect("answered").body, "hello");
    let answer = client.post("/echo", "ping").await.expect("answered");
    assert_eq!(answer.body, "ping");
    let head = client
        .send(
            Request::get("/head?a=b")
                .header("connection", "upgrade, x-hop")
                .header("upgrade", "websocket")
                .header("x-hop", "1")
                .header("te", "trailers"),
            crate::pod::empty(),
        )
        .await
        .expect("answered");
    let head = crate::pod::read(head).await.expect("whole").body;
    let address = pod.address();
    let expected = format!(
        "GET http://{address}/head?a=b\nvia: 1.1 sidescale\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: {address}\nx-forwarded-proto: http\n"
    );
    assert_eq!(head, expected);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_head_of_http2_is_put_into_words_of_http1() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let request = get("/head?a=b")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let call = client.open(request, true).await.expect("sent");
    let answer = call.answer().await.expect("answered");
    assert_eq!(
        answer.body,
        "GET /head?a=b HTTP/1.1\nconnection: te\ncookie: a=1; b=2\nhost: model\nte: trailers\n\
         via: 2.0 sidescale\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: model\n\
         x-forwarded-proto: http\n"
    );
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (http1, http2) = upstreams().await;
    for upstream in [http1.address, http2.address] {
        let pod = Pod::ready(upstream).await;
        let client = Client::connect(pod.address()).await;
        let request = post("/echo")
            .header("te", "trailers")
            .header("trailer", "x-checksum");
        let mut call = client.open(request, false).await.expect("sent");
        call.send("body").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "42".parse().expect("valid"));
        call.stream.send_trailers(trailers.clone()).expect("sent");
        let answer = call.answer().await.expect("answered");
        assert_eq!(
            (&answer.body[..], answer.trailers),
            (&b"body"[..], Some(trailers))
        );
    }
}

#[tokio::test]
async fn a_client_that_resets_a_stream_resets_it_upstream_at_once() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    // Before the response's head, with and without a body under way, and within the response.
    let hanging = [
        client.open(get("/hang"), true),
        client.open(post("/hang"), false),
    ];
    let hanging = join_all(hanging).await;
    let dripping = client.open(get("/drip"), true).await.expect("sent");
    let mut body = within(dripping.response).await.expect("a head").into_body();
    let one = within(read_frame(&mut body)).await.expect("more");
    assert_eq!(one.expect("whole"), "one");
    server.waits_with(2).await;
    assert_eq!(pod.accounts.in_flight(), 3);
    drop((hanging, body, dripping.stream));
    server.was_reset(Reason::CANCEL, 3).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.arrivals, reading.client_gone), (3, 3));
    assert_eq!(
        client.get("/").await.expect("the connection lives").body,
        "hello"
    );
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_all_its_streams() {
    let (http1, http2) = upstreams().await;
    let (mut waiting, mut abandoned) = (http1.waiting(), http1.abandoned());
    for upstream in [http1.address, http2.address] {
        let pod = Pod::ready(upstream).await;
        let client = Client::connect(pod.address()).await;
        let calls = (0..5).map(|_call| client.open(get("/hang"), true));
        let calls = join_all(calls).await;
        if upstream == http2.address {
            http2.waits_with(5).await;
        } else {
            let seen = within(waiting.wait_for(|count| *count == 5)).await;
            drop(seen.expect("the server lives"));
        }
        assert_eq!(pod.accounts.in_flight(), 5);
        client.leave();
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!((reading.arrivals, reading.client_gone), (5, 5));
        drop(calls);
    }
    let seen = within(abandoned.wait_for(|count| *count == 5)).await;
    drop(seen.expect("the server lives"));
    http2.was_reset(Reason::CANCEL, 5).await;
}

/// A reset without an error is no end of a request, whatever hyper takes it for.
#[tokio::test]
async fn half_a_request_never_looks_whole_upstream() {
    let (http1, http2) = upstreams().await;
    for upstream in [http1.address, http2.address] {
        let pod = Pod::ready(upstream).await;
        for reason in [Reason::NO_ERROR, Reason::CANCEL] {
            let client = Client::connect(pod.address()).await;
            let mut call = client.open(post("/echo"), false).await.expect("sent");
            call.send("half").await;
            let response = within(call.response).await.expect("a head");
            let mut body = response.into_body();
            let half = within(read_frame(&mut body)).await.expect("more");
            assert_eq!(half.expect("whole"), "half");
            call.stream.send_reset(reason);
            let reading = pod.accounted(|now| now.in_flight == 0).await;
            assert_eq!(reading.completions, 0, "{reason:?}");
        }
        assert_eq!(pod.reading().client_gone, 2);
    }
    http2.was_reset(Reason::CANCEL, 2).await;
}

/// A server may answer in full and read on; then nothing but the rest of the request is left of it.
#[tokio::test]
async fn half_a_request_that_was_answered_never_looks_whole_either() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    for reset in [true, false] {
        let mut call = client.open(post("/accepted"), false).await.expect("sent");
        call.send("half").await;
        assert_eq!(read_all(&mut call).await.expect("answered"), "accepted");
        if reset {
            call.stream.send_reset(Reason::NO_ERROR);
            server.was_reset(Reason::CANCEL, 1).await;
            assert_eq!(server.whole_requests(), 0);
        } else {
            call.send("and half").await;
            call.stream.send_data(Bytes::new(), true).expect("sent");
            while server.whole_requests() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(pod.reading().completions, 2);
}

/// The server reads nothing of the request, so nothing of it is read here, and its end is not seen by that.
#[tokio::test]
async fn a_client_that_leaves_a_stalled_upload_resets_it_upstream() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut call = client.open(post("/drip"), false).await.expect("sent");
    let response = within(&mut call.response).await.expect("a head");
    let mut body = response.into_body();
    let one = within(read_frame(&mut body)).await.expect("more");
    assert_eq!(one.expect("whole"), "one");
    call.stream.reserve_capacity(1 << 20);
    let large = Bytes::from(vec![0; 1 << 20]);
    call.stream.send_data(large, false).expect("buffered");
    for _turn in 0..200 {
        tokio::task::yield_now().await;
    }
    drop((call, body));
    server.was_reset(Reason::CANCEL, 1).await;
    pod.accounted(|now| now.in_flight == 0 && now.client_gone == 1)
        .await;
}

/// The same before there is a response, byte by byte: neither a last chunk nor the end of a stream.
#[tokio::test]
async fn half_a_request_is_never_ended_on_the_wire() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    for _round in 0..20 {
        taken_back(&pod).await;
    }
    server.was_reset(Reason::CANCEL, 20).await;
    assert_eq!(server.whole_requests(), 0);
    let listener = TcpListener::bind(crate::http2::any()).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let pod = Pod::start(address, |settings| settings.protocol = Protocol::Http1);
    for _round in 0..20 {
        let taken = taken_back(&pod);
        let read = async {
            loop {
                let (mut stream, _peer) = within(listener.accept()).await.expect("a connection");
                let mut seen = String::new();
                within(stream.read_to_string(&mut seen))
                    .await
                    .expect("read");
                // A probe says nothing.
                if !seen.is_empty() {
                    return seen;
                }
            }
        };
        let ((), seen) = tokio::join!(taken, read);
        assert!(seen.ends_with("4\r\nhalf\r\n"), "{seen:?}");
    }
}

/// A request that is reset without an error, in the middle of its body.
async fn taken_back(pod: &Pod) {
    let gone = pod.reading().client_gone;
    let client = Client::connect(pod.address()).await;
    let mut call = client.open(post("/whole"), false).await.expect("sent");
    call.send("half").await;
    pod.accounted(|now| now.in_flight == 1).await;
    for _turn in 0..20 {
        tokio::task::yield_now().await;
    }
    call.stream.send_reset(Reason::NO_ERROR);
    pod.accounted(|now| now.in_flight == 0 && now.client_gone == gone + 1)
        .await;
}

#[tokio::test]
async fn an_upstream_that_resets_a_stream_resets_the_clients_with_its_reason() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let reasons = [
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
    ];
    for reason in reasons {
        let path = format!("/reset/{}", u32::from(reason));
        let mut call = client.open(post(&path), false).await.expect("sent");
        let response = within(&mut call.response).await.expect("a head");
        let mut body = response.into_body();
        let one = within(read_frame(&mut body)).await.expect("more");
        assert_eq!(one.expect("whole"), "one");
        call.send("go on").await;
        let cut = within(read_frame(&mut body)).await.expect("no end");
        assert_eq!(cut.expect_err("cut").reason(), Some(reason));
    }
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.upstream_failed), (0, 3));
    // The same to a client of HTTP/1: a body that is cut.
    let mut old = pod.client().await;
    let response = old.send(Request::post("/reset/8"), full("go on")).await;
    let mut body = response.expect("a head").into_body();
    while let Some(Ok(_piece)) = chunk(&mut body).await {}
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.upstream_failed), (0, 4));
}

/// A reset without an error may follow a whole response, and is no end of half a one.
#[tokio::test]
async fn a_reset_without_an_error_ends_nothing_that_is_not_whole() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut early = client.open(post("/early"), false).await.expect("sent");
    early.send("begun").await;
    let answer = read_all(&mut early).await.expect("answered");
    assert_eq!(answer, "too large");
    pod.accounted(|now| now.completions == 1).await;
    let call = client.post("/reset/0", "go on").await;
    call.expect_err("half a response, and no more of the request to be given up");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.upstream_failed), (1, 1));
}

async fn read_all(call: &mut crate::http2::Call) -> Result<Bytes, h2::Error> {
    let response = within(&mut call.response).await?;
    Ok(crate::http2::read(response).await?.body)
}

#[tokio::test]
async fn a_request_that_the_server_refused_is_sent_again_once() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    server.refuse(1);
    assert_eq!(client.get("/").await.expect("answered").body, "hello");
    // What was sent of the body by then is sent again.
    server.refuse(1);
    let answer = client.post("/echo", "ping").await.expect("answered");
    assert_eq!(answer.body, "ping");
    server.refuse(2);
    let answer = client.post("/echo", "ping").await.expect("answered");
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    server.refuse(1);
    let upload = client
        .post("/echo", vec![0; 1 << 20])
        .await
        .expect("answered");
    assert!(upload.status == StatusCode::BAD_GATEWAY || upload.body.len() == 1 << 20);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(reading.arrivals, reading.completions + reading.failures());
}

#[tokio::test]
async fn a_server_that_says_goodbye_loses_no_request() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let clients = (0..8).map(async |_client| {
        for request in 0..100 {
            if request % 10 == 0 {
                server.say_goodbye();
            }
            let answer = client.post("/echo", "ping").await.expect("answered");
            assert_eq!(
                (answer.status, &answer.body[..]),
                (StatusCode::OK, &b"ping"[..])
            );
        }
    });
    join_all(clients).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (800, 0));
    assert!(server.connections() > 2, "{}", server.connections());
    assert_eq!(server.requests(), 800);
}

#[tokio::test]
async fn the_servers_limit_of_streams_opens_connections_and_no_more_than_needed() {
    let server = Server::start_at(crate::http2::any(), 2).await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let calls = (0..6).map(|_call| client.open(get("/hang"), true));
    let calls = join_all(calls).await;
    server.waits_with(6).await;
    assert_eq!(server.connections(), 3);
    drop(calls);
    pod.accounted(|now| now.in_flight == 0).await;
    // A hundred at once on what is free by then: none is refused, none waits for ever.
    let answers = (0..100).map(|_request| client.post("/echo", "ping"));
    for answer in join_all(answers).await {
        assert_eq!(answer.expect("answered").body, "ping");
    }
    let plenty = Server::start().await;
    let pod = Pod::ready(plenty.address).await;
    let client = Client::connect(pod.address()).await;
    let answers = (0..100).map(|_request| client.post("/echo", "ping"));
    for answer in join_all(answers).await {
        assert_eq!(answer.expect("answered").body, "ping");
    }
    assert_eq!(plenty.connections(), 1);
}

/// With windows that adapt, a connection's is that of one stream, and this stops.
#[tokio::test]
async fn a_stalled_stream_stops_no_other() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    // Ten responses of eight megabytes that nobody reads, on one connection upstream.
    let stalled = (0..10).map(|_call| client.open(get("/flood"), true));
    let stalled = join_all(stalled).await;
    // And ten requests to a server that does not read.
    let uploads = (0..10).map(async |_call| {
        let mut call = client.open(post("/hang"), false).await.expect("sent");
        // As much as the windows hold.
        call.stream.reserve_capacity(1 << 20);
        call.stream
            .send_data(Bytes::from(vec![0; 1 << 20]), false)
            .expect("buffered");
        call
    });
    let uploads = join_all(uploads).await;
    server.waits_with(10).await;
    let other = Client::connect(pod.address()).await;
    for _request in 0..100 {
        let answer = other
            .post("/echo", vec![7; 100_000])
            .await
            .expect("answered");
        assert_eq!(answer.body.len(), 100_000);
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(pod.accounts.in_flight(), 20);
    drop((stalled, uploads));
    pod.accounted(|now| now.in_flight == 0).await;
}

/// A client that sends first and reads later must not meet a proxy that waits for it to read.
#[tokio::test]
async fn a_request_goes_up_while_its_response_is_not_read() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut call = client.open(post("/flood"), false).await.expect("sent");
    let mut body = within(&mut call.response)
        .await
        .expect("a head")
        .into_body();
    // The windows of the response are full by and by, and the request goes on.
    for _piece in 0..6 {
        call.send(vec![0; 10_000]).await;
    }
    call.stream.send_data(Bytes::new(), true).expect("sent");
    let mut read = 0;
    while let Some(data) = within(read_frame(&mut body)).await {
        read += data.expect("whole").len();
    }
    assert_eq!(read, FLOOD_FRAMES * 16_384);
    pod.accounted(|now| now.completions == 1).await;
}

#[tokio::test]
async fn what_the_server_speaks_is_learnt_again_when_another_comes_up() {
    let first = Server::start().await;
    let address = first.address;
    let pod = Pod::ready(address).await;
    let new = Client::connect(pod.address()).await;
    let mut old = pod.client().await;
    assert_eq!(new.get("/").await.expect("answered").body, "hello");
    first.die();
    pod.becomes(Health::Down).await;
    for restart in 0..3 {
        if restart % 2 == 0 {
            let server = ModelServer::start_at(address).await;
            both_are_answered(&pod, &new, &mut old).await;
            assert_eq!(server.requests(), 2);
            server.die();
        } else {
            let server = Server::start_at(address, 100).await;
            both_are_answered(&pod, &new, &mut old).await;
            assert_eq!(server.requests(), 2);
            server.die();
        }
        pod.becomes(Health::Down).await;
    }
}

async fn both_are_answered(pod: &Pod, new: &Client, old: &mut crate::pod::Client) {
    pod.becomes(Health::Ready).await;
    assert_eq!(new.get("/").await.expect("answered").body, "hello");
    assert_eq!(old.get("/").await.expect("answered").body, "hello");
}

/// The server restarts between two probes: nothing is lost of a request that HTTP/2 would have carried.
#[tokio::test]
async fn a_server_that_turns_out_to_speak_http1_gets_the_request_by_it() {
    let first = Server::start().await;
    let address = first.address;
    // Its probes are an hour apart.
    let pod = Pod::start_at_speed(1.0 / 3_600.0, address, |_settings| {});
    pod.becomes(Health::Ready).await;
    let client = Client::connect(pod.address()).await;
    assert_eq!(
        client.post("/echo", "ping").await.expect("answered").body,
        "ping"
    );
    first.die();
    while TcpStream::connect(address).await.is_ok() {}
    let second = ModelServer::start_at(address).await;
    let answer = client.post("/echo", "pong").await.expect("answered");
    assert_eq!(
        (answer.status, &answer.body[..]),
        (StatusCode::OK, &b"pong"[..])
    );
    assert_eq!(second.requests(), 1);
}

#[tokio::test]
async fn a_protocol_that_was_set_is_not_asked_for() {
    let (http1, http2) = upstreams().await;
    for (protocol, right, wrong) in [
        (Protocol::Http1, http1.address, http2.address),
        (Protocol::H2c, http2.address, http1.address),
    ] {
        for (upstream, status) in [(right, StatusCode::OK), (wrong, StatusCode::BAD_GATEWAY)] {
            let pod = Pod::start(upstream, |settings| settings.protocol = protocol);
            pod.becomes(Health::Ready).await;
            let client = Client::connect(pod.address()).await;
            let answer = client.get("/").await.expect("answered");
            assert_eq!(answer.status, status, "{protocol:?}");
            let old = pod.client().await.get("/").await.expect("answered");
            assert_eq!(old.status, status, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn readiness_by_path_asks_a_server_of_http2_in_its_own_tongue() {
    let server = Server::start().await;
    let ready = Pod::start(server.address, |settings| {
        settings.probe = "http:/health".parse::<Probe>().expect("a probe");
    });
    ready.becomes(Health::Ready).await;
    let server = Server::start().await;
    let refused = Pod::start(server.address, |settings| {
        settings.probe = "http:/early".parse::<Probe>().expect("a probe");
    });
    while server.requests() < 3 {
        tokio::task::yield_now().await;
    }
    assert!(!refused.proxy.is_ready());
}

/// A preface byte by byte is one, and a method that begins like it is none.
#[tokio::test]
async fn the_first_bytes_decide_however_they_come() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.expect("written");
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    within(stream.read_exact(&mut frame))
        .await
        .expect("an answer");
    assert_eq!(
        (frame[3], &frame[5..]),
        (4, &[0; 4][..]),
        "SETTINGS come first"
    );
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    for piece in [
        "P",
        "RI",
        "NT / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n",
    ] {
        stream.write_all(piece.as_bytes()).await.expect("written");
        for _turn in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer))
        .await
        .expect("read");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connect_is_refused_and_costs_no_other_stream() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let plain = Request::connect("model:443");
    let call = client.open(plain, false).await.expect("sent");
    let answer = call.answer().await.expect("answered");
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!client.sender.is_extended_connect_protocol_enabled());
    assert_eq!(client.get("/").await.expect("answered").body, "hello");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.refused, reading.completions), (1, 1));
}
