package machine

// ReadFstab reads a file in the format of fstab(5). A swap is the first and
// the fourth field as they stand in the file, for SwapOn. A bad line is left
// out and is in the error with its number; the others are good.
func ReadFstab(path string) (mounts []Mount, swaps []string, err error) {
	return nil, nil, errNotYet
}
