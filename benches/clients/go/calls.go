package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// call makes one of the calls that gRPC's implementations test each other with. A failed one ends the program itself.
func call(address string, which []string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testpb.NewTestServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cases := map[string]func(){
		"empty_unary":                 func() { interop.DoEmptyUnaryCall(ctx, client) },
		"large_unary":                 func() { interop.DoLargeUnaryCall(ctx, client) },
		"client_streaming":            func() { interop.DoClientStreaming(ctx, client) },
		"server_streaming":            func() { interop.DoServerStreaming(ctx, client) },
		"ping_pong":                   func() { interop.DoPingPong(ctx, client) },
		"empty_stream":                func() { interop.DoEmptyStream(ctx, client) },
		"timeout_on_sleeping_server":  func() { interop.DoTimeoutOnSleepingServer(ctx, client) },
		"cancel_after_begin":          func() { interop.DoCancelAfterBegin(ctx, client) },
		"cancel_after_first_response": func() { interop.DoCancelAfterFirstResponse(ctx, client) },
		"status_code_and_message":     func() { interop.DoStatusCodeAndMessage(ctx, client) },
		"special_status_message":      func() { interop.DoSpecialStatusMessage(ctx, client) },
		"custom_metadata":             func() { interop.DoCustomMetadata(ctx, client) },
		"unimplemented_method":        func() { interop.DoUnimplementedMethod(ctx, connection) },
		"unimplemented_service":       func() { interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(connection)) },
	}
	for _, name := range which {
		run, known := cases[name]
		if !known {
			return fmt.Errorf("%q is no case", name)
		}
		run()
	}
	return nil
}
