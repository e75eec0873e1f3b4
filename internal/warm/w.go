package warm
import (
_ "modernc.org/sqlite"
_ "github.com/go-git/go-git/v5"
_ "github.com/spf13/viper"
_ "github.com/spf13/cobra"
_ "github.com/goccy/go-yaml"
_ "github.com/expr-lang/expr"
_ "github.com/pressly/goose/v3"
_ "github.com/go-playground/webhooks/v6/github"
_ "github.com/klauspost/compress/zstd"
_ "github.com/coreos/go-systemd/v22/daemon"
_ "golang.org/x/crypto/ssh"
_ "golang.org/x/sys/unix"
_ "golang.org/x/term"
_ "github.com/rogpeppe/go-internal/testscript"
_ "github.com/google/go-cmp/cmp"
)
