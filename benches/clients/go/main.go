// What benches/clients/run needs of Go: the server that all clients ask, and the clients net/http and grpc-go.
//
//	clients serve ADDRESS                 HTTP/1, HTTP/2 by prior knowledge, gRPC and WebSocket on one port
//	clients http1|http2 URL               net/http, one line of JSON for each kind of request, the next when it is given a line
//	clients grpc ADDRESS CASE             one case of gRPC's interoperability tests; ends with an error where it fails
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: clients serve|http1|http2|grpc ADDRESS [CASE]")
		os.Exit(64)
	}
	var err error
	switch what, where := os.Args[1], os.Args[2]; what {
	case "serve":
		err = serve(where)
	case "http1", "http2":
		err = ask(where, what == "http2")
	case "grpc":
		err = call(where, os.Args[3:])
	default:
		err = fmt.Errorf("%q is none of serve, http1, http2 and grpc", what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
