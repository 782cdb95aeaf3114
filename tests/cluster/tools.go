//go:build tools

// Package cluster pins the Kubernetes components that the tests of this folder start.
//
// Nothing here is compiled: the imports keep `go mod tidy` from dropping what assets.rs builds.
package cluster

import (
	_ "go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
