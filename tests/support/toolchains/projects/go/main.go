package main

import (
	"fmt"

	"example.invalid/work/sum"
)

func main() { fmt.Println(sum.Total(10)) }
