"""The lab's guest: how its image and its disk are made (`build`) and how one is booted by hand (`boot`)."""
