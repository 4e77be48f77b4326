// Command etcd is etcd's own server; its main package lives in a module of its own, which pins other versions.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
