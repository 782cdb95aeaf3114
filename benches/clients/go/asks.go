package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

const many = 20

// done is a line for benches/clients/run.
type done struct {
	Sent     string `json:"sent"`
	Requests int    `json:"requests"`
	Failed   int    `json:"failed"`
	Bytes    int64  `json:"bytes"`
	Status   string `json:"status"`
	Note     string `json:"note,omitempty"`
}

type asker struct {
	client *http.Client
	base   string
}

// ask sends each kind of request as a program with net/http does.
func ask(base string, http2 bool) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Protocols: protocols(!http2, http2), ExpectContinueTimeout: time.Second}}
	a := asker{client, base}
	large := bytes.Repeat([]byte("x"), 1<<21)
	a.say("GET 64 KiB", many, func() (*http.Request, error) { return a.request("GET", "/bytes/65536", nil) })
	a.say("HEAD", many, func() (*http.Request, error) { return a.request("HEAD", "/bytes/65536", nil) })
	a.say("GET chunked, 64 KiB", many, func() (*http.Request, error) { return a.request("GET", "/chunked/65536", nil) })
	a.say("GET with trailers", many, func() (*http.Request, error) { return a.request("GET", "/trailers", nil) })
	a.say("POST 2 MiB", 5, func() (*http.Request, error) { return a.request("POST", "/echo", bytes.NewReader(large)) })
	a.say("POST chunked, 2 MiB, trailer", 5, func() (*http.Request, error) {
		// Without its length, which net/http would see.
		request, err := a.request("POST", "/echo", io.MultiReader(bytes.NewReader(large)))
		if err == nil {
			request.Trailer = http.Header{"X-Sum": {"42"}}
		}
		return request, err
	})
	a.say("POST 2 MiB, Expect", 5, func() (*http.Request, error) { return a.expecting("/echo", large) })
	a.say("POST 2 MiB, Expect, 413", 5, func() (*http.Request, error) { return a.expecting("/refuse", large) })
	a.say("GET events", 3, func() (*http.Request, error) { return a.request("GET", "/events", nil) })
	a.say("GET, cut by the server", 3, func() (*http.Request, error) { return a.request("GET", "/broken", nil) })
	a.leave()
	return nil
}

func (a asker) request(method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequest(method, a.base+path, body)
}

func (a asker) expecting(path string, body []byte) (*http.Request, error) {
	request, err := a.request("POST", path, bytes.NewReader(body))
	if err == nil {
		request.Header.Set("expect", "100-continue")
	}
	return request, err
}

func (a asker) say(sent string, times int, make func() (*http.Request, error)) {
	all := done{Sent: sent, Requests: times}
	notes := map[string]bool{}
	for range times {
		request, err := make()
		if err == nil {
			err = a.send(request, &all, notes)
		}
		if err != nil {
			all.Failed++
			notes[reason(err)] = true
		}
	}
	print(all, notes)
}

func (a asker) send(request *http.Request, all *done, notes map[string]bool) error {
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	all.Status = response.Proto[:6] + " " + fmt.Sprint(response.StatusCode)
	begun := time.Now()
	body, err := io.ReadAll(response.Body)
	all.Bytes += int64(len(body))
	if kind := response.Header.Get("content-type"); strings.HasPrefix(kind, "text/event-stream") && time.Since(begun) < (events-1)*step {
		notes["events held back"] = true
	}
	if len(response.Trailer) > 0 {
		notes["trailer "+strings.Join(response.Trailer["X-Sum"], "")] = true
	}
	var echoed struct{ Trailer string }
	if json.Unmarshal(body, &echoed) == nil && echoed.Trailer != "" {
		notes["the server got the trailer"] = true
	}
	return err
}

// leave gives up in the middle of a stream.
func (a asker) leave() {
	all := done{Sent: "GET events, and leaves", Requests: 3, Status: "left"}
	for range all.Requests {
		ctx, cancel := context.WithCancel(context.Background())
		request, err := http.NewRequestWithContext(ctx, "GET", a.base+"/events", nil)
		if err == nil {
			var response *http.Response
			if response, err = a.client.Do(request); err == nil {
				_, err = response.Body.Read(make([]byte, 64))
				cancel()
				response.Body.Close()
			}
		}
		cancel()
		if err != nil {
			all.Failed++
		}
	}
	print(all, nil)
}

// numbers are those of streams.
var numbers = regexp.MustCompile(`(stream ID |LastStreamID=)\d+[;,] `)

// reason is an error without the addresses and the numbers in it, which differ from way to way.
func reason(err error) string {
	words := strings.Split(err.Error(), ": ")
	return numbers.ReplaceAllString(words[len(words)-1], "")
}

func print(all done, notes map[string]bool) {
	said := []string{}
	for note := range notes {
		said = append(said, note)
	}
	slices.Sort(said)
	all.Note = strings.Join(said, "; ")
	json.NewEncoder(os.Stdout).Encode(all)
	// Meanwhile it is read how sidescale counted these.
	os.Stdin.Read(make([]byte, 1))
}
