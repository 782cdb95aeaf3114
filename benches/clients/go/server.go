package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

const (
	events = 5
	step   = 40 * time.Millisecond
)

// serve is a model server as far as its clients can tell: whole answers and streams, uploads, trailers, refusals.
func serve(address string) error {
	calls := grpc.NewServer()
	testpb.RegisterTestServiceServer(calls, interop.NewTestServer())
	healthpb.RegisterHealthServer(calls, health.NewServer())
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") })
	mux.HandleFunc("/bytes/{size}", func(w http.ResponseWriter, r *http.Request) { sized(w, r, true) })
	mux.HandleFunc("/chunked/{size}", func(w http.ResponseWriter, r *http.Request) { sized(w, r, false) })
	mux.HandleFunc("/status/{status}", status)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/refuse", refuse)
	mux.HandleFunc("/trailers", trailers)
	mux.HandleFunc("/events", stream)
	mux.HandleFunc("/broken", broken)
	mux.HandleFunc("/ws", socket)
	mux.HandleFunc("/v1/chat/completions", completion)
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
			calls.ServeHTTP(w, r)
		} else {
			mux.ServeHTTP(w, r)
		}
	})
	server := http.Server{Addr: address, Handler: all, Protocols: protocols(true, true)}
	return server.ListenAndServe()
}

func protocols(http1, http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(http1)
	p.SetUnencryptedHTTP2(http2)
	return p
}

func sized(w http.ResponseWriter, r *http.Request, known bool) {
	size, err := strconv.Atoi(r.PathValue("size"))
	if err != nil || size < 0 || size > 1<<26 {
		http.Error(w, "a size of at most 64 MiB", http.StatusBadRequest)
		return
	}
	w.Header().Set("content-type", "application/octet-stream")
	if known {
		w.Header().Set("content-length", strconv.Itoa(size))
	} else {
		w.(http.Flusher).Flush()
	}
	piece := []byte(strings.Repeat("x", 16<<10))
	for size > 0 && r.Context().Err() == nil {
		n := min(size, len(piece))
		w.Write(piece[:n])
		size -= n
	}
}

func status(w http.ResponseWriter, r *http.Request) {
	status, err := strconv.Atoi(r.PathValue("status"))
	if err != nil || status < 200 || status > 599 {
		status = http.StatusBadRequest
	}
	w.WriteHeader(status)
}

// echo says what came, so that a body that was cut or changed shows.
func echo(w http.ResponseWriter, r *http.Request) {
	sum := sha1.New()
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, map[string]any{"bytes": size, "sha1": fmt.Sprintf("%x", sum.Sum(nil)), "trailer": r.Trailer.Get("x-sum")})
}

// refuse answers before it has read anything of the body.
func refuse(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "too large", http.StatusRequestEntityTooLarge)
}

func trailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("trailer", "x-sum")
	io.WriteString(w, "a body with a trailer\n")
	w.(http.Flusher).Flush()
	w.Header().Set("x-sum", "42")
}

// broken sends a part of what it promised, and closes.
func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-length", "1000")
	io.WriteString(w, "half")
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("content-type", "text/event-stream")
	w.Header().Set("cache-control", "no-cache")
	w.Header().Set("x-accel-buffering", "no")
	for n := range events {
		fmt.Fprintf(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"t%d \"},\"finish_reason\":null}]}\n\n", n)
		w.(http.Flusher).Flush()
		select {
		case <-time.After(step):
		case <-r.Context().Done():
			return
		}
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func completion(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Stream bool `json:"stream"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if asked.Stream {
		stream(w, r)
		return
	}
	message := map[string]any{"role": "assistant", "content": "hello"}
	choice := map[string]any{"index": 0, "message": message, "finish_reason": "stop"}
	answer(w, map[string]any{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []any{choice}})
}

func answer(w http.ResponseWriter, what any) {
	w.Header().Set("content-type", "application/json")
	json.NewEncoder(w).Encode(what)
}

// socket echoes the frames of a WebSocket, up to the one that closes it.
func socket(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("upgrade"), "websocket") {
		http.Error(w, "only WebSocket is here", http.StatusUpgradeRequired)
		return
	}
	proof := sha1.Sum([]byte(r.Header.Get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(proof[:]))
	echoFrames(both.Reader, conn)
}

func echoFrames(from *bufio.Reader, to net.Conn) {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		size := uint64(head[1] & 0x7f)
		switch size {
		case 126:
			more := make([]byte, 2)
			if _, err := io.ReadFull(from, more); err != nil {
				return
			}
			size = uint64(binary.BigEndian.Uint16(more))
		case 127:
			more := make([]byte, 8)
			if _, err := io.ReadFull(from, more); err != nil {
				return
			}
			size = binary.BigEndian.Uint64(more)
		}
		if size > 1<<22 {
			return
		}
		body := make([]byte, 4+size)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		mask, payload := body[:4], body[4:]
		for n := range payload {
			payload[n] ^= mask[n%4]
		}
		frame := []byte{head[0]}
		switch {
		case size < 126:
			frame = append(frame, byte(size))
		case size < 1<<16:
			frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(size))
		default:
			frame = binary.BigEndian.AppendUint64(append(frame, 127), size)
		}
		const ping, pong, end = 9, 10, 8
		if head[0]&0xf == ping {
			frame[0] = head[0]&0xf0 | pong
		}
		if _, err := to.Write(append(frame, payload...)); err != nil || head[0]&0xf == end {
			return
		}
	}
}
