// Package soma adds to the generated stubs what a program would otherwise write anew: who calls, and how an import
// outlives its connections. Everything else is the stubs' own.
package soma

//go:generate go build -o build/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
//go:generate buf generate

import (
	"context"
	"fmt"
)

// Identity says who calls, in the metadata of every call. It is given to a connection with
// grpc.WithPerRPCCredentials or to one call with grpc.PerRPCCredentials.
type Identity struct {
	// Key is the API key or JWT.
	Key string
	// Tenant is one of the key's tenants; empty takes its only one.
	Tenant string
	// Persona and Session stand in where a request names none.
	Persona string
	Session string
	// Plaintext allows connections without TLS, on which anybody between can read the key.
	Plaintext bool
}

// GetRequestMetadata is called by gRPC for every call.
func (i Identity) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	sent := map[string]string{"authorization": "Bearer " + i.Key}
	for name, value := range map[string]string{
		"soma-tenant":  i.Tenant,
		"soma-persona": i.Persona,
		"soma-session": i.Session,
	} {
		if value != "" {
			sent[name] = value
		}
	}
	return sent, nil
}

// RequireTransportSecurity keeps gRPC from sending the key unencrypted.
func (i Identity) RequireTransportSecurity() bool { return !i.Plaintext }

// String leaves out the key, which does not belong in a log.
func (i Identity) String() string {
	return fmt.Sprintf("tenant=%q persona=%q session=%q", i.Tenant, i.Persona, i.Session)
}

// GoString leaves it out as well.
func (i Identity) GoString() string { return "soma.Identity{" + i.String() + "}" }
