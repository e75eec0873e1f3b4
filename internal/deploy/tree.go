package deploy

// TreeMode is what a file of a commit is.
type TreeMode string

// The kinds of files that git knows and that a release may hold. Submodules
// have no mode here: their files stand below their paths.
const (
	TreePlain      TreeMode = "file"       // 0644
	TreeExecutable TreeMode = "executable" // 0755
	TreeSymlink    TreeMode = "symlink"    // its content is the link's target
)

// TreeFile is one file of a commit, without its content.
type TreeFile struct {
	Path string   // relative, slash-separated, as git has it: any bytes but NUL
	Mode TreeMode // plain, executable or symlink
	Size int64    // bytes
	Blob string   // SHA-1 that a git blob of its content has, hex
}
