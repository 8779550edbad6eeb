package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pazinit/pazinit/control"
)

// The scripts hand the words to the hidden `pazinit complete`, which answers with
// one candidate a line, a tab and a description behind it, or with anyFile.
const (
	anyFile = ":file"

	bashScript = `# bash completion for pazinit: source <(pazinit completion bash)
_pazinit() {
	local -a words=()
	local word line=${COMP_LINE:0:COMP_POINT}
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=('')
	word=${words[${#words[@]}-1]}
	COMPREPLY=()
	# Readline takes what follows the last : or = for the word.
	local keep=${word%"${word##*[:=]}"}
	while IFS=$'\t' read -r line _; do
		if [[ $line == ':file' ]]; then
			compopt -o filenames 2>/dev/null
			while read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$word")
			return
		fi
		[[ $line == *= ]] && compopt -o nospace 2>/dev/null
		[[ $line == "$word"* ]] && COMPREPLY+=("${line#"$keep"}")
	done < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _pazinit pazinit
`

	zshScript = `#compdef pazinit
# zsh completion for pazinit: source <(pazinit completion zsh)
_pazinit() {
	local line name
	local -a names shown open openshown
	while IFS= read -r line; do
		if [[ $line == ':file' ]]; then
			_files
			return
		fi
		name=${line%%$'\t'*}
		if [[ $name == *= ]]; then
			open+=("$name") openshown+=("${line/$'\t'/  -- }")
		else
			names+=("$name") shown+=("${line/$'\t'/  -- }")
		fi
	done < <("${(Q)words[1]}" complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
	(( $#open )) && compadd -S '' -l -d openshown -a open
	(( $#names )) && compadd -l -d shown -a names
}
if [[ $funcstack[1] == _pazinit ]]; then
	_pazinit "$@"
else
	compdef _pazinit pazinit
fi
`

	fishScript = `# fish completion for pazinit: pazinit completion fish | source
function __pazinit_complete
	set -l words (commandline -opc)
	set -l word (commandline -ct)
	set -l found ($words[1] complete -- $words[2..-1] "$word" 2>/dev/null)
	if test "$found" = ':file'
		__fish_complete_path "$word"
	else if test (count $found) -gt 0
		printf '%s\n' $found
	end
end
complete -c pazinit -f -a '(__pazinit_complete)'
`
)

// completeTime is how long a completion waits for the supervisor: a person
// waits with it.
const completeTime = time.Second

// signalNames are the signals that one sends by hand.
var signalNames = []string{"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"}

// completion prints the script for a shell.
func (c *command) completion(args []string) int {
	scripts := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
	if len(args) != 1 || scripts[args[0]] == "" {
		return c.fail(exitUsage, "completion: want one of bash, zsh and fish")
	}
	fmt.Fprint(c.stdout, scripts[args[0]])
	return 0
}

// complete answers a completion script: the words after the program's name, the
// one being typed last.
func (c *command) complete(words []string) int {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	last := len(words) - 1
	for _, line := range candidates(words[:last], words[last]) {
		if strings.HasPrefix(line, words[last]) || line == anyFile {
			fmt.Fprintln(c.stdout, line)
		}
	}
	return 0
}

// candidates are what word may become after the words before it.
func candidates(before []string, word string) []string {
	if slices.Contains(before, "--") {
		return []string{anyFile} // a command and its arguments
	}
	before = verbFirst(before)
	verb := ""
	if len(before) > 0 {
		verb = before[0]
	}
	if verb == "run" || strings.HasPrefix(verb, "-") || verb == "" && strings.HasPrefix(word, "-") {
		return runCandidates(before, word)
	}
	if verb == "" {
		return verbCandidates(true)
	}
	v := control.Lookup(verb)
	if v == nil {
		return []string{anyFile}
	}
	flags := flagsOf(v)
	if f := valueOf(flags, before[len(before)-1]); f != nil {
		return flagValues(f)
	}
	if strings.HasPrefix(word, "-") {
		var out []string
		for _, f := range flags {
			out = append(out, "--"+f.Name+"\t"+f.Help)
		}
		return out
	}
	args := 0
	for i, w := range before[1:] {
		if !strings.HasPrefix(w, "-") && valueOf(flags, before[i]) == nil {
			args++
		}
	}
	switch {
	case v.Name == "help" && args == 0:
		return verbCandidates(true)
	case v.Name == "initramfs":
		return []string{anyFile}
	case v.Name == "completion" && args == 0:
		return []string{"bash", "zsh", "fish"}
	case v.Name == "signal" && args == 0:
		return signalNames
	case v.Names:
		return names(v, before)
	}
	return nil
}

// verbFirst puts the flags that stand before a verb behind it, where they mean
// the same.
func verbFirst(words []string) []string {
	for i := 0; i < len(words); i++ {
		switch w := words[i]; {
		case !strings.HasPrefix(w, "-"):
			if control.Lookup(w) == nil {
				return words
			}
			return slices.Concat(words[i:i+1], words[:i], words[i+1:])
		case w == "-c" || w == "--config" || w == "--socket":
			i++
		}
	}
	return words
}

// valueOf is the flag whose value follows word, nil if word is none.
func valueOf(flags []control.Flag, word string) *control.Flag {
	for i := range flags {
		if f := &flags[i]; f.Value != "" && (word == "--"+f.Name || f.Short != "" && word == "-"+f.Short) {
			return f
		}
	}
	return nil
}

func flagValues(f *control.Flag) []string {
	switch f.Name {
	case "socket", "config", "procfile", "output", "file", "busybox", "sysroot", "entries", "kernel-modules", "microcode", "init", "list", "verify":
		return []string{anyFile}
	case "stream", "compress":
		return strings.Split(f.Value, "|")
	case "signal":
		return signalNames
	}
	return nil
}

func verbCandidates(run bool) (out []string) {
	if run {
		out = append(out, "run\tsupervise the workers of a Procfile")
	}
	for _, v := range control.Verbs() {
		out = append(out, v.Name+"\t"+v.Short)
	}
	return out
}

// runCandidates are the flags of supervising, and of one command.
func runCandidates(before []string, word string) []string {
	if len(before) > 0 {
		switch before[len(before)-1] {
		case "-c", "--config", "-f", "--socket":
			return []string{anyFile}
		case "--log-format":
			return []string{"auto", "plain", "json", "raw"}
		}
	}
	if !strings.HasPrefix(word, "-") {
		if before[0] != "run" {
			return verbCandidates(false)
		}
		return nil
	}
	var out []string
	flags := runFlags
	if before[0] != "run" {
		flags += execFlags
	}
	for line := range strings.Lines(flags) {
		f := strings.Fields(line)
		text := strings.TrimSpace(line)
		if i := strings.Index(text, "  "); i >= 0 {
			text = strings.TrimSpace(text[i:])
		}
		out = append(out, f[0]+"\t"+text)
	}
	return out
}

// names are those that the supervisor has now; none if there is no supervisor,
// or none that answers at once.
func names(v *control.Verb, before []string) []string {
	flags := flagsOf(v)
	var socket, config string
	given := map[string]bool{}
	for i, w := range before {
		if f := valueOf(flags, before[max(i-1, 0)]); f != nil && i > 0 {
			switch f.Name {
			case "socket":
				socket = w
			case "config":
				config = w
			}
			continue
		}
		if s, ok := strings.CutPrefix(w, "--socket="); ok {
			socket = s
		}
		if s, ok := strings.CutPrefix(w, "--config="); ok {
			config = s
		}
		given[w] = true
	}
	if home := os.Getenv("HOME"); home != "" { // the shell has not expanded it yet
		for _, p := range []*string{&socket, &config} {
			if rest, ok := strings.CutPrefix(*p, "~/"); ok {
				*p = home + "/" + rest
			}
		}
	}
	path, _, err := clientSocket(socket, config)
	if err != nil {
		return nil
	}
	cl, err := control.Dial(path)
	if err != nil {
		return nil
	}
	defer cl.Close()
	ctx, stop := context.WithTimeout(context.Background(), completeTime)
	defer stop()
	r, err := cl.Do(ctx, &control.Request{Verb: "status"}, nil)
	if err != nil {
		return nil
	}
	var out []string
	add := func(name, text string) {
		if !given[name] {
			given[name] = true
			out = append(out, name+"\t"+text)
		}
	}
	for _, s := range r.Status {
		worker := s.App + ":" + s.Worker
		switch v.Name {
		case "scale":
			add(worker+"=", s.Command)
		case "remove":
			add(worker, s.Command)
		default:
			add(worker, s.Command)
			if s.Instance > 0 {
				add(s.Name, s.State)
			}
		}
	}
	if len(out) > 0 && v.Name != "scale" && v.Name != "remove" {
		add("all", "everything")
	}
	return out
}
