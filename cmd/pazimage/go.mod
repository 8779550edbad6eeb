module github.com/pazinit/pazinit/cmd/pazimage

go 1.26.0

require (
	github.com/klauspost/compress v1.20.3
	github.com/pazinit/pazinit v0.0.0
	github.com/ulikunitz/xz v0.5.17
)

require (
	github.com/kballard/go-shellquote v0.0.0-20180428030007-95032a82bc51 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/pazinit/pazinit => ../..
