// Command vault is HashiCorp Vault, built without the engines and logins of some forty clouds and databases. Called by
// the name of the plug-in that logs in with Kubernetes, which goes with them, it is that plug-in.
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "vault-plugin-") {
		if err := serve(); err != nil {
			hclog.L().Error("plug-in shutting down", "error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(command.Run(os.Args[1:]))
}

func serve() error {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		return err
	}
	return plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: kubernetes.Factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	})
}
