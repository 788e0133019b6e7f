module example.invalid/work

go 1.19

require example.invalid/dep v1.0.0
