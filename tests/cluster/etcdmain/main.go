// Command etcd is the released etcd server: its own main package cannot be built from outside of its module.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
