// Publish, read, and see the three outcomes.
//
//	go run . tls://broker.example:5574 ca.pem ORDERS        with PLANARIA_TOKEN
package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

func main() {
	url, authority, topic := argument(1, "tls://127.0.0.1:5574"), argument(2, ""), argument(3, "ORDERS")
	if err := UseAuthority(authority); err != nil {
		fail(err)
	}
	client := Connect(url, os.Getenv("PLANARIA_TOKEN"), "go-example")
	defer client.Close()

	greeting, err := client.Hello()
	if err != nil {
		fail(err)
	}
	principal, isNamed := greeting["principal"].(string)
	if !isNamed {
		principal = "-"
	}
	fmt.Println("hello", principal)

	offset := end(client, topic)
	for _, id := range []string{"go-1", "go-2", "go-2"} {
		duplicate, err := client.Publish(topic, "k", "order "+id, id)
		if err != nil {
			fail(err)
		}
		fmt.Printf("published duplicate=%t\n", duplicate)
	}
	for count := 0; count < 2; {
		records, next, err := client.Fetch(topic, 0, offset, 5*time.Second)
		if err != nil {
			fail(err)
		}
		for _, each := range records {
			fmt.Println("consumed", each["key_text"], each["value_text"])
			count++
		}
		offset = next
	}

	var refusal *Refusal
	if _, err := client.Ask("delete_topic", Fields{"topic": "__offsets"}, 10*time.Second); errors.As(err, &refusal) {
		fmt.Printf("fail %s retriable=%t\n", refusal.Code, refusal.Retriable)
	}
	late := Fields{"topic": topic, "partition": 0, "offset": end(client, topic), "max_wait_ms": 30_000}
	if _, err := client.Ask("fetch", late, 200*time.Millisecond); errors.Is(err, ErrUnknown) {
		fmt.Println("unknown")
	}
}

func end(client *Client, topic string) int64 {
	reply, err := client.Repeated(
		"list_offsets", Fields{"topic": topic, "partition": 0, "at": "latest"}, 30*time.Second, attempt)
	if err != nil {
		fail(err)
	}
	return int64(reply["offset"].(float64))
}

func argument(number int, otherwise string) string {
	if len(os.Args) > number {
		return os.Args[number]
	}
	return otherwise
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
