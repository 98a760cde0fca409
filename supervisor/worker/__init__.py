"""`planaria worker`: the handlers of an application, in processes outside the broker, on any machine.

    planaria worker          this package, in the command's process: what to run, reloads, signals
      supervisor             the supervisor of a broker, with the tree of a worker; restarted when it dies
        subscriber/GROUP/N   the processes of hosted subscribers, which are clients of the broker

The command's process imports no code of the application. When it is killed, the supervisor notices and stops in order.

    options.py       the options of a worker
    description.py   the application, described by a process of its own
    fleet.py         the child specs of an application; starts and replaces the processes
    watching.py      changes of the application's files
    run.py           the life of a worker
"""
