package config
import ("testing";"fmt";"strings";"time";"os"
"github.com/goccy/go-yaml/parser"
"github.com/goccy/go-yaml/lexer"
"github.com/goccy/go-yaml/ast"
"github.com/goccy/go-yaml"
"errors"
)
func dump(n ast.Node, d int) {
 if n==nil { fmt.Println(strings.Repeat(" ",d)+"NIL"); return }
 tk:=n.GetToken()
 p:=""
 if tk!=nil { p=fmt.Sprintf("%d:%d %q", tk.Position.Line, tk.Position.Column, tk.Value)}
 fmt.Printf("%s%T %s\n", strings.Repeat(" ",d), n, p)
 switch n:=n.(type){
 case *ast.MappingNode: for _,v:=range n.Values { dump(v,d+1)}
 case *ast.MappingValueNode: dump(n.Key,d+1); dump(n.Value,d+2)
 case *ast.SequenceNode: for _,v:=range n.Values {dump(v,d+1)}
 case *ast.AnchorNode: fmt.Println("anchor name", n.Name); dump(n.Value,d+1)
 case *ast.AliasNode: dump(n.Value,d+1)
 case *ast.TagNode: dump(n.Value,d+1)
 case *ast.MappingKeyNode: dump(n.Value,d+1)
 case *ast.LiteralNode: dump(n.Value,d+1); fmt.Printf("%q\n", n.Value.Value)
 case *ast.DocumentNode: dump(n.Body,d+1)
 }
}
func TestX(t *testing.T){
 for _,s:=range []string{
 "a: 1.10\nb: 0644\nc: yes\nd: ~\ne:\nf: 'x'\ng: \"é: y\" # c\non: push\n? k\n: v\nrun: |\n  one\n  two\nfold: >-\n  x\n  y\n",
 "é: {a: b, c: [1, 2]}\nlist:\n- a\n- b: c\n  d: e\n-\n- - x\n",
 "base: &b\n  x: 1\nz:\n  <<: *b\n  y: 2\nq:\n  <<: [*b, *b]\nt: !!str 1\nu: !foo bar\nv: &c val\n*c : x\n",
 "a:\n\tb: 1\n", "a: 1\n\tb: 2\n", "a: [1,2\n", "a: 'x\n", "a: b: c\n", "--- \na: 1\n---\nb: 1\n", "a: 1\n...\n---\n", "", "# hi\n", "just text", "- a\n", "a: 1\na: 2\n", "a:1\n", "{a: 1, b}\n", "a: {b: 1\nc: 2\n", "a: \"\\q\"\n", "a: @x\n","a: %x\n", "a: *nope\n", "a: `x`\n", "%YAML 1.2\n---\na: 1\n", "a: |\n  x\r\n  y\r\nb: 1\r\n", "\ufeffa: 1\n", "a:\n  - b\n c: 1\n", "a: \n   b: 1\n  c: 2\n", "&x a: 1\n","a: 1\n b: 2\n","a: b\n  c\n  d\n", "k:\n  run: foo: bar\n", "a: - b\n", "a: x # y\n", "a: x#y\n", "a: &x [*x]\n", "a: x\n\n\nb: y\n", "a: \"x\n  y\"\n","?\n", ": x\n", "[a, b]: c\n", "{a: b}: c\n", "a: !!binary aGk=\n", "a: 0x1f\nb: 1e3\nc: .inf\nd: 1_000\ne: 0o17\nf: 010\ng: 2001-01-01\nh: 12:30\n",
 "a: 'it''s'\nb: \"a\\tb\\u00e9\\0\"\n",
 }{
  fmt.Printf("=== %q\n", s)
  f,err:=parser.ParseBytes([]byte(s), 0, parser.AllowDuplicateMapKey())
  if err!=nil { var e yaml.Error; if errors.As(err,&e){ tk:=e.GetToken(); fmt.Printf("ERR %q", e.GetMessage()); if tk!=nil {fmt.Printf(" at %d:%d %q", tk.Position.Line,tk.Position.Column,tk.Value)}; fmt.Println()} else {fmt.Printf("OTHER %T %v\n",err,err)}; continue }
  fmt.Println("docs", len(f.Docs))
  for _,d:=range f.Docs { dump(d,0)}
 }
}
func TestTime(t *testing.T){
 for name,s:=range map[string]string{
  "lines": strings.Repeat("a: b\n",200000), "dash": strings.Repeat("- ",100000), "list": "a: ["+strings.Repeat("a,",400000)+"]", "deepblock": func() string{var b strings.Builder; for i:=0;i<1300;i++{b.WriteString(strings.Repeat(" ",i)+"a:\n")};return b.String()}(),
  "flow": strings.Repeat("[",200000), "flowmap": strings.Repeat("{a: ",100000), "quote": "a: \""+strings.Repeat("x",1000000)+"\"", "openquote": "a: '"+strings.Repeat("x\n",500000), "literal":"a: |\n"+strings.Repeat("  xxxxxxxxx\n",80000), "comments": strings.Repeat("# x\n",250000)+"a: b\n", "anchors": strings.Repeat("- &a b\n",100000), "tags":"a: "+strings.Repeat("!!str ",100000)+"x", "colons": "a"+strings.Repeat(":",1000000), "qs": strings.Repeat("? ",100000), "plain": "a: "+strings.Repeat("x ",500000), "plainlines":"a: "+strings.Repeat("x\n  ",300000), "sp": strings.Repeat(" ",1000000), "nl": "a: b"+strings.Repeat("\n",1000000)+"c: d", "crlf": strings.Repeat("\r\n",500000)+"a: b", "dq": strings.Repeat("a: \"\\x41\"\n",80000), "anch2": "a: "+strings.Repeat("&a ",100000)+"x",
 }{
  if w:=os.Getenv("ONLY"); w!="" && w!=name {continue}
  t0:=time.Now(); tk:=lexer.Tokenize(s); t1:=time.Now()
  fmt.Println(name, len(s), "lex", t1.Sub(t0), len(tk))
  if name=="flow"||name=="dash"||name=="flowmap"||name=="tags"||name=="qs"||name=="anch2" {continue}
  _,err:=parser.Parse(tk,0,parser.AllowDuplicateMapKey())
  e:=""; if err!=nil { e=strings.SplitN(err.Error(),"\n",2)[0]; if len(e)>100 {e=e[:100]}}
  fmt.Println(name, "parse", time.Since(t1), e)
 }
}
