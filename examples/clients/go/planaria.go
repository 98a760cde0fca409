// A thin client of Planaria: one DEALER socket, headers in JSON, over tcp without authentication or through the broker's TLS
// door with a token. docs/protocol.md has the fields of all requests.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/transport"
)

const (
	firstPause     = 50 * time.Millisecond
	longestPause   = 2 * time.Second
	reconnectPause = 200 * time.Millisecond
	attempt        = 10 * time.Second
)

// Fields of a request or a reply.
type Fields map[string]any

// Refusal is the outcome `fail`: the broker has not done it.
type Refusal struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	Retriable    bool   `json:"retriable"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// ErrUnknown is the outcome `unknown`: no answer before the deadline. The request may have been done, now or later; repeat
// it only if that does no harm.
var ErrUnknown = errors.New("no answer before the deadline: the request may have been done")

// Client is safe for several goroutines.
type Client struct {
	url     string
	hello   Fields
	ctx     context.Context
	cancel  context.CancelFunc
	mutex   sync.Mutex
	socket  zmq4.Socket   // of the present connection, if there is one
	isUp    chan struct{} // closed when there is one
	failure error         // of the last attempt to connect
	lastID  uint64
	waiting map[uint64]chan json.RawMessage
}

// overTLS is a transport for zmq4: its addresses are tls://HOST:PORT.
type overTLS struct {
	transport.Transport
	config *tls.Config
}

func (t overTLS) Dial(ctx context.Context, _ transport.Dialer, address string) (net.Conn, error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: attempt}, Config: t.config}
	return dialer.DialContext(ctx, "tcp", address)
}

// UseAuthority makes tls:// endpoints known: the broker's certificate must be signed by an authority in this PEM file, or by
// one of the system's if it is empty. Call it once, before the first client.
func UseAuthority(file string) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s: no certificate in it", file)
		}
	}
	return zmq4.RegisterTransport("tls", overTLS{transport.New("tcp"), config})
}

// Connect connects in the background, and again after each interruption. An empty token is for a broker without
// authentication.
func Connect(url, token, clientID string) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	hello := Fields{"version": 1, "client_id": clientID}
	if token != "" {
		hello["token"] = token
	}
	client := &Client{
		url: url, hello: hello, ctx: ctx, cancel: cancel,
		isUp: make(chan struct{}), waiting: map[uint64]chan json.RawMessage{},
	}
	go client.run()
	return client
}

// Close ends the client.
func (c *Client) Close() { c.cancel() }

// Hello greets the broker; it is needed before other requests.
func (c *Client) Hello() (Fields, error) {
	return c.Repeated("hello", c.hello, 30*time.Second, attempt)
}

// Ask sends a request once, over the present connection or the next one. The error is nil, a
// *Refusal, ErrUnknown, or the reason why there was no connection before the deadline, so that nothing was done.
func (c *Client) Ask(op string, fields Fields, timeout time.Duration) (Fields, error) {
	header := Fields{"op": op}
	for name, value := range fields {
		header[name] = value
	}
	if op != "hello" {
		header["greeted"] = true
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	socket, id, answered := c.begin(deadline.C)
	if socket == nil {
		return nil, c.notSent()
	}
	header["id"] = id
	go send(socket, header) // the deadline holds for a connection that takes no more bytes, too
	select {
	case text, isAnswered := <-answered:
		if !isAnswered {
			return nil, ErrUnknown // the connection was lost
		}
		return read(text)
	case <-deadline.C:
		c.mutex.Lock()
		delete(c.waiting, id)
		c.mutex.Unlock()
		go send(socket, Fields{"op": "cancel", "request_id": id})
		return nil, ErrUnknown
	}
}

// Repeated sends a request that does no harm when it is done twice, until its outcome is known and final, or time is over.
func (c *Client) Repeated(op string, fields Fields, timeout, attempt time.Duration) (Fields, error) {
	ends := time.Now().Add(timeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		reply, err := c.Ask(op, fields, min(attempt, max(time.Until(ends), time.Millisecond)))
		var refusal *Refusal
		isRefused := errors.As(err, &refusal)
		if err == nil || isRefused && !refusal.Retriable || time.Now().After(ends) {
			return reply, err
		}
		if isRefused && refusal.Code == "HELLO_REQUIRED" {
			_, _ = c.Ask("hello", c.hello, attempt)
		}
		if isRefused && refusal.RetryAfterMS > 0 {
			time.Sleep(time.Duration(refusal.RetryAfterMS) * time.Millisecond)
		} else {
			time.Sleep(pause)
		}
	}
}

// Publish publishes one record. The dedup id makes a repetition harmless.
func (c *Client) Publish(topic, key, value, dedupID string) (duplicate bool, err error) {
	record := Fields{"key_text": key, "value_text": value, "dedup_id": dedupID}
	reply, err := c.Repeated("publish", Fields{"topic": topic, "records": []Fields{record}}, 30*time.Second, attempt)
	if err != nil {
		return false, err
	}
	written := reply["records"].([]any)[0].(map[string]any)
	if fault, is := written["error"].(map[string]any); is {
		retriable, _ := fault["retriable"].(bool)
		return false, &Refusal{Code: fault["code"].(string), Message: fault["message"].(string), Retriable: retriable}
	}
	duplicate, _ = written["duplicate"].(bool)
	return duplicate, nil
}

// Fetch returns records of one partition from an offset on, and the next offset; none after `wait`.
func (c *Client) Fetch(topic string, partition int, offset int64, wait time.Duration) ([]Fields, int64, error) {
	fields := Fields{"topic": topic, "partition": partition, "offset": offset, "max_wait_ms": wait.Milliseconds()}
	reply, err := c.Repeated("fetch", fields, wait+30*time.Second, wait+attempt)
	if err != nil {
		return nil, offset, err
	}
	var records []Fields
	found, _ := reply["records"].([]any)
	for _, each := range found {
		records = append(records, each.(map[string]any))
	}
	return records, int64(reply["next_offset"].(float64)), nil
}

// begin waits for a connection, and registers a request on it. The socket is nil if there is none before the deadline.
func (c *Client) begin(deadline <-chan time.Time) (zmq4.Socket, uint64, chan json.RawMessage) {
	for {
		c.mutex.Lock()
		socket, isUp := c.socket, c.isUp
		if socket != nil {
			c.lastID++
			answered := make(chan json.RawMessage, 1)
			c.waiting[c.lastID] = answered
			defer c.mutex.Unlock()
			return socket, c.lastID, answered
		}
		c.mutex.Unlock()
		select {
		case <-isUp:
		case <-deadline:
			return nil, 0, nil
		case <-c.ctx.Done():
			return nil, 0, nil
		}
	}
}

func (c *Client) notSent() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	reason := c.ctx.Err() // after Close
	if reason == nil {
		reason = c.failure
	}
	if reason == nil {
		reason = context.DeadlineExceeded
	}
	return fmt.Errorf("no connection to %s: %w", c.url, reason)
}

// run keeps a connection and passes on its replies, until the client is closed. A connection that is lost ends the requests
// on it; Repeated greets on the next one, as HELLO_REQUIRED asks it to.
func (c *Client) run() {
	for c.ctx.Err() == nil {
		socket := zmq4.NewDealer(c.ctx, zmq4.WithDialerMaxRetries(0))
		if err := socket.Dial(c.url); err == nil {
			c.connected(socket)
			for {
				message, err := socket.Recv()
				if err != nil {
					break
				}
				c.deliver(message.Frames[0])
			}
			c.lost()
		} else {
			c.mutex.Lock()
			c.failure = err
			c.mutex.Unlock()
		}
		_ = socket.Close()
		select {
		case <-c.ctx.Done():
		case <-time.After(reconnectPause):
		}
	}
}

func (c *Client) connected(socket zmq4.Socket) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.socket = socket
	close(c.isUp)
}

func (c *Client) lost() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.socket, c.isUp = nil, make(chan struct{})
	for id, answered := range c.waiting {
		delete(c.waiting, id)
		close(answered)
	}
}

func send(socket zmq4.Socket, header Fields) {
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	_ = socket.Send(zmq4.NewMsg(text)) // a request that was not sent has no answer
}

func (c *Client) deliver(header []byte) {
	var named struct {
		ID *uint64 `json:"id"`
	}
	if json.Unmarshal(header, &named) != nil || named.ID == nil {
		return
	}
	c.mutex.Lock()
	answered := c.waiting[*named.ID]
	delete(c.waiting, *named.ID)
	c.mutex.Unlock()
	if answered != nil {
		answered <- header
	}
}

func read(text json.RawMessage) (Fields, error) {
	var refused struct {
		Error *Refusal `json:"error"`
	}
	if err := json.Unmarshal(text, &refused); err != nil {
		return nil, err
	}
	if refused.Error != nil {
		return nil, refused.Error
	}
	var reply Fields
	return reply, json.Unmarshal(text, &reply)
}
