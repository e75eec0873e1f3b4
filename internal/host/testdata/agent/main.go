// Agent is an agent alone: a small program that needs nothing of its host.
package main

import (
	"os"

	"deployhook/internal/agent"
)

func main() { os.Exit(agent.Main(agent.Options{Version: "small", SSH: true})) }
